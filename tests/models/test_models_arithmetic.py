"""Which number type a model computes in, on processors of all kinds."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from batchchat.engines import EngineContext
from batchchat.engines.cpu import kernels
from batchchat.engines.loading import load, multiplied_by_torch, widened
from batchchat.models.arithmetic import computing_dtype
from batchchat.models.loading import load_model
from batchchat.models.text import load_config
from batchchat.recipe import Recipe
from batchchat.recipe.model import ModelSection
from tests.support.published import LLAMA_8B
from tests.support.zoo import Clock

AVX2 = {"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}
AVX512_BF16 = {**AVX2, "avx512_bf16": True}
AMX = {**AVX512_BF16, "amx_bf16": True, "amx_fp16": True}
ARM = {"architecture": "arm64", "bf16": True, "fp16_arith": True}
UNKNOWN: dict[str, Any] = {}
TINY = AutoConfig.for_model("llama", hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
GIB = 2**30


def dtype(features: dict[str, Any], stored: str, patch: pytest.MonkeyPatch, **section: Any) -> str:
    patch.setattr(torch.cpu, "get_capabilities", lambda: features)
    TINY.dtype = stored
    return computing_dtype(ModelSection(device_map="cpu", **section), TINY, 8 * GIB)


@pytest.mark.parametrize(
    ("features", "bfloat16", "float16"),
    [
        (AVX2, "float32", "float32"),
        (AVX512_BF16, "bfloat16", "float32"),
        (AMX, "bfloat16", "float16"),
        (ARM, "bfloat16", "float16"),
        (UNKNOWN, "bfloat16", "float16"),
    ],
    ids=["AVX2", "AVX-512 with bfloat16", "AMX", "ARM", "a torch that does not say"],
)
def test_auto_is_a_type_that_the_processor_multiplies(
    features: dict[str, Any], bfloat16: str, float16: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dtype(features, "bfloat16", monkeypatch) == bfloat16
    assert dtype(features, "float16", monkeypatch) == float16
    assert dtype(features, "float32", monkeypatch) == "float32"


def test_what_the_recipe_says_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dtype(AVX2, "bfloat16", monkeypatch, dtype="bfloat16") == "bfloat16"
    assert dtype(AMX, "bfloat16", monkeypatch, dtype="float32") == "float32"
    assert dtype(AVX2, "bfloat16", monkeypatch, quantization="8bit") == "bfloat16"


def test_weights_that_have_no_room_in_float32_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AVX2)
    config = copy.deepcopy(LLAMA_8B)
    config.dtype = "bfloat16"
    section = ModelSection(name="owner/not-here", device_map="cpu")
    assert computing_dtype(section, config, 64 * GIB) == "bfloat16"
    assert computing_dtype(section, config, 128 * GIB) == "float32"


def test_the_size_of_weights_is_that_of_their_files_where_these_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AVX2)
    monkeypatch.setattr("batchchat.models.shape.empty_model", None)  # not even asked
    section = ModelSection(device_map="cpu")  # 2.8 million weights
    config = load_config(section)
    assert computing_dtype(section, config, 30 * 2**20) == "bfloat16"
    assert computing_dtype(section, config, 64 * 2**20) == "float32"


def test_weights_that_the_engine_widens_itself_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AVX2)
    TINY.dtype = "bfloat16"
    section = ModelSection(device_map="cpu")
    assert computing_dtype(section, TINY, 8 * GIB, ("bfloat16",)) == "bfloat16"
    assert computing_dtype(section, TINY, 8 * GIB, ("float16",)) == "float32"
    for kind in ("gpt2", "mixtral"):  # whose matrices lie in modules of other kinds
        config = AutoConfig.for_model(kind, dtype="bfloat16", num_hidden_layers=1)
        assert computing_dtype(section, config, 1024 * GIB, ("bfloat16",)) == "float32"


def test_only_engines_that_widen_get_narrow_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, wanted in (("auto", {"bfloat16", "float16"}), ("pipeline", set())):
        recipe = Recipe.model_validate({"source": {"path": "-"}, "engine": {"kind": kind}})
        assert set(widened(recipe)) == wanted
    monkeypatch.setattr(kernels, "compiled", lambda: False)
    kernels.widens.cache_clear()
    try:
        assert not widened(Recipe.model_validate({"source": {"path": "-"}}))
    finally:
        kernels.widens.cache_clear()


def test_a_model_that_goes_to_the_pipeline_is_in_what_torch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AVX2)
    recipe = Recipe.model_validate({"source": {"path": "-"}})
    context = EngineContext(recipe, None, Clock())
    model = load(context)
    assert (model.dtype, context.kept) == (torch.bfloat16, {"dtype": "bfloat16"})
    assert multiplied_by_torch(model, context).dtype == torch.float32
    assert context.kept == {"dtype": "float32"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: AMX)
    context = EngineContext(recipe, None, Clock())
    assert multiplied_by_torch(load(context), context).dtype == torch.bfloat16


def test_a_model_is_loaded_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, wanted in ((AVX2, torch.float32), (AMX, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features)
        assert load_model(ModelSection()).dtype == wanted


def test_a_run_goes_on_in_the_numbers_that_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine, or with an engine, that would choose others."""
    kept: dict[str, Any] = {}
    for features, kind in ((AVX2, "pipeline"), (AVX2, "auto"), (AMX, "pipeline")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features)
        recipe = Recipe.model_validate({"source": {"path": "-"}, "engine": {"kind": kind}})
        assert load(EngineContext(recipe, None, Clock(), kept=kept)).dtype == torch.float32
    assert kept == {"dtype": "float32"}
    named = Recipe.model_validate({"source": {"path": "-"}, "model": {"dtype": "bfloat16"}})
    assert load(EngineContext(named, None, Clock(), kept=kept)).dtype == torch.bfloat16
    assert kept == {"dtype": "float32"}
