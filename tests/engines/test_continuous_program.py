"""Models of the common form are computed by a program: bit for bit what their modules compute. Others keep theirs."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from batchchat.engines import EngineContext, build_engine
from batchchat.engines.continuous import form, lowering
from batchchat.engines.continuous.admission import probe
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.model_runner import NO_PROGRAM, PROGRAMS, ModelRunner
from batchchat.engines.cpu import preparation
from batchchat.engines.cpu.kernels import c_functions, tiled
from batchchat.engines.cpu.packing import packed_products
from batchchat.engines.cpu.preparation import prepare
from batchchat.engines.cpu.products import candidates, make
from batchchat.prompts import TokenizerCodec
from batchchat.recipe import Recipe
from batchchat.schedule import Feed
from tests.support.answers import TIE, drain_with_second_turns, first_difference, requests
from tests.support.architectures import ARCHITECTURES, OF_OTHER_KINDS, VOCABULARY, Architecture
from tests.support.engines import continuous, each_by
from tests.support.zoo import Clock, byte_bpe, llama, request

CODEC = TokenizerCodec(byte_bpe())
COMMON = (
    *("llama", "llama, multi-query", "qwen2", "qwen3", "mistral, window 50"),
    *("gemma", "gemma2, window 50", "gemma3, window 50", "phi3", "phi3, half of each head turned"),
    *("olmo2", "olmo3, window 50", "smollm3", "granite"),
)
ROUTED = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss, window 50")
DTYPES = (torch.float32, torch.bfloat16)


def named(name: str) -> Architecture:
    return next(architecture for architecture in ARCHITECTURES if architecture.name == name)


@pytest.mark.parametrize("name", [*COMMON, *ROUTED])
def test_answers_of_a_program_are_those_of_generate(name: str) -> None:
    model = named(name).model()
    prepare(model)
    engine = continuous(model, Clock(), max_rows=4, max_tokens=4096)
    assert engine.describe().computed_by == "program"
    done = list(drain_with_second_turns(engine, Feed(iter(requests()), look_ahead=100)))
    assert len(done) == len(requests()) + 5
    gaps = [gap for one in done if (gap := first_difference(model, one)) is not None]
    assert all(gap < TIE for gap in gaps), gaps
    assert len(gaps) <= 1


def logits(model: Any, by_modules: bool, takes: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """Of prompts computed together, in passes that take so many tokens of each."""
    runner = ModelRunner(model, KVCache(8192), by_modules=by_modules)
    prompts = probe.prompts(VOCABULARY, [sum(counts) for counts in zip(*takes, strict=True)])
    return torch.cat(probe.logits(runner, takes, prompts, least=4))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", [*COMMON, *ROUTED])
def test_a_program_gives_the_bits_of_the_modules(name: str, dtype: torch.dtype) -> None:
    """Prompts, answers, drafts, padding, and a prompt so long that torch's attention takes it."""
    model = named(name).model().to(dtype)
    prepare(model)
    assert model in PROGRAMS
    for takes in (((40, 3, 17), (1, 1, 1), (3, 1, 5), (0, 90, 1)), ((1100, 2), (1, 1), (200, 1))):
        assert torch.equal(logits(model, False, takes), logits(model, True, takes))


@pytest.mark.parametrize(
    ("dtype", "product"), [(torch.float32, "oneDNN"), (torch.bfloat16, "oneDNN"), (torch.float16, "kernel")], ids=str
)
def test_so_does_one_with_other_products(dtype: torch.dtype, product: str) -> None:
    model = named("qwen2").model().to(dtype)
    prepare(model, kept=each_by(product, model))
    assert model in PROGRAMS
    assert {one.name for one in packed_products(model)} == {product}
    takes = ((40, 3, 17), (1, 1, 1), (3, 1, 5))
    assert torch.equal(logits(model, False, takes), logits(model, True, takes))


@pytest.fixture
def as_many_threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_program_gives_the_same_bits_whoever_takes_the_work(
    dtype: torch.dtype, as_many_threads: Callable[[int], None]
) -> None:
    """Of more threads than cores many come late, and others have taken their pieces by then."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=320, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(dtype).eval()
    prepare(model, kept=each_by("kernel", model))
    assert model in PROGRAMS
    takes = ((40, 3, 17), (1, 1, 1), (3, 1, 5), (0, 90, 1), *[(1, 1, 1)] * 20)
    as_many_threads(1)
    wanted = logits(model, False, takes)
    for threads in (2, 3, 8) * 3:
        as_many_threads(threads)
        assert torch.equal(logits(model, False, takes), wanted), threads


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("starcoder2", "what the attention of starcoder2 does is not known here"),
        ("deepseek_v2", "what the attention of deepseek_v2 does is not known here"),
        ("gpt_neox", "its GPTNeoXModel consists of"),
    ],
)
def test_models_of_another_form_have_no_program_and_the_report_says_why(name: str, why: str, tmp_path: Path) -> None:
    named(name).model().save_pretrained(tmp_path)
    recipe = {"model": {"name": str(tmp_path), "dtype": "float32"}, "source": {"path": "-"}}
    clock = Clock()
    engine = build_engine("auto", EngineContext(Recipe.model_validate(recipe), CODEC, clock))
    assert engine.describe().computed_by == "kernels"
    assert why in dict(clock.events)["no_program"]
    (done,) = engine.run(Feed(iter([request(0, tuple(range(5, 40)), max_new_tokens=9)]), look_ahead=1))
    assert (first_difference(named(name).model(), done) or 0.0) < TIE


def test_a_program_whose_logits_are_others_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model = named("granite").model()
    model.model.layers[1].residual_multiplier = 0.7
    plain = form.form_of

    def wrong(model: Any) -> form.DecoderForm:
        found = plain(model)
        return replace(found, layers=(found.layers[0], replace(found.layers[1], times=0.8)))

    monkeypatch.setattr(lowering, "form_of", wrong)
    prepare(model)
    assert model not in PROGRAMS
    assert NO_PROGRAM[model] == "its logits were not those of the model's modules"


@pytest.mark.parametrize("name", ["ministral3", "llama, yarn"])
def test_attention_that_depends_on_far_positions_is_no_programs(name: str) -> None:
    model = next(a for a in OF_OTHER_KINDS if a.name.startswith(name)).model()
    prepare(model)
    assert (model in PROGRAMS) == (name == "llama, yarn")


def test_a_program_turns_queries_and_keys_at_any_position() -> None:
    model = copy.deepcopy(llama(layers=1))
    prepare(model)
    takes, tokens = ((5, 2), (1, 1)), probe.prompts(480, [6, 3])
    for offsets in ((), (1000, 0), (1 << 17, 1 << 17), (1, 1 << 20)):
        ours, modules = (
            torch.cat(probe.logits(ModelRunner(model, KVCache(1024), by_modules=plain), takes, tokens, offsets=offsets))
            for plain in (False, True)
        )
        assert torch.equal(ours, modules)


def test_a_model_whose_module_does_something_more_has_no_program() -> None:
    model = copy.deepcopy(llama(layers=1))
    plain = model.model.layers[0].self_attn.forward

    def doubled(*args: Any, **more: Any) -> Any:
        out, weights = plain(*args, **more)
        return 2 * out, weights

    model.model.layers[0].self_attn.forward = doubled
    prepare(model)
    assert model not in PROGRAMS


def test_a_program_goes_with_the_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(llama(layers=1))
    undo = prepare(model)
    assert model in PROGRAMS
    undo()
    assert model not in PROGRAMS
    monkeypatch.setattr(preparation, "programmable", lambda: False)  # a torch without the C functions
    prepare(model)
    assert model not in PROGRAMS


def test_c_functions_are_trusted_where_a_process_of_its_own_survives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a version of torch that nobody has tried."""
    monkeypatch.setattr(c_functions, "TRIED", ("1.0",))
    c_functions.are_trusted.cache_clear()
    try:
        assert c_functions.are_trusted()
    finally:
        c_functions.are_trusted.cache_clear()
    assert not c_functions.survives([sys.executable, "-c", "import ctypes; ctypes.string_at(1)"])


tiles_only = pytest.mark.skipif(not tiled(), reason="this processor has no matrix units for bfloat16 (Intel's AMX)")


@tiles_only
@given(
    rows=st.integers(1, 150), blocks=st.integers(1, 4), chunks=st.integers(1, 4), bias=st.booleans(), seed=st.integers()
)
@settings(max_examples=60, deadline=None)
def test_tiles_multiply(rows: int, blocks: int, chunks: int, bias: bool, seed: int) -> None:
    """As the product in double precision, rounded once; and each row alone as among others."""
    generator = torch.Generator().manual_seed(seed % 2**32)
    weight = torch.randn(32 * blocks, 32 * chunks, generator=generator).bfloat16()
    more = torch.randn(32 * blocks, generator=generator).bfloat16() if bias else None
    x = torch.randn(rows, 32 * chunks, generator=generator).bfloat16()
    tiles = make("tiles", weight, more)
    found = tiles(x)
    exact = x.double() @ weight.T.double() + (0 if more is None else more.double())
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=1e-5)
    one = seed % rows
    assert torch.equal(tiles(x[one : one + 1])[0], found[one])


@tiles_only
def test_shapes_that_tiles_do_not_fit_are_left_to_others() -> None:
    assert "tiles" in candidates(32, 64, torch.bfloat16)
    for outputs, width, dtype in ((33, 64, torch.bfloat16), (32, 60, torch.bfloat16), (32, 64, torch.float32)):
        assert "tiles" not in candidates(outputs, width, dtype)
