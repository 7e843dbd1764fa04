"""Models from a name: what loads, and what each failure says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GenerationConfig

from batchchat.chats import Message
from batchchat.errors import BatchchatError, EnvironmentFault, UsageError
from batchchat.models import load_generation_defaults, load_model, load_text_side, load_tokenizer, resolve_name
from batchchat.prompts import ByteCodec
from batchchat.recipe import Recipe
from batchchat.recipe.schema import ModelSection
from tests.support import zoo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with all its files."""
    path = tmp_path_factory.mktemp("models") / "small"
    tokenizer = zoo.byte_bpe()
    model = zoo.llama(len(tokenizer), seed=3)
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.6, eos_token_id=[1, 3])
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def section(name: str | Path, **values: Any) -> ModelSection:
    return ModelSection.model_validate({"name": str(name), "local_files_only": True, **values})


def copied(folder: Path, target: Path, leave_out: tuple[str, ...] = ()) -> Path:
    target.mkdir()
    for path in folder.iterdir():
        if path.name not in leave_out:
            (target / path.name).write_bytes(path.read_bytes())
    return target


def test_soft_capped_scores_are_computed_by_an_attention_that_caps(tmp_path: Path) -> None:
    """A cap so low that a model without it gives other logits."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = Gemma2Config(**sizes, vocab_size=80, num_key_value_heads=2, head_dim=8, attn_logit_softcapping=0.01)
    config.initializer_range = 0.5
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    capped = load_model(section(tmp_path))
    assert capped.config._attn_implementation == "eager"
    ids = torch.arange(40)[None]
    found = capped(ids).logits
    for layer in capped.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    assert (capped(ids).logits - found).abs().max() > 0.1


def test_a_folder_loads_with_everything_it_says(folder: Path) -> None:
    recipe = Recipe.model_validate({"model": {"name": str(folder)}, "source": {"path": ["-"]}})
    text = load_text_side(recipe)
    assert text.codec.eos_token_ids == (1, 3)
    assert text.codec.context_length == 256
    assert text.generation_defaults["temperature"] == 0.6
    assert text.codec.decode(text.codec.render((Message("user", "Hello"),))).startswith("<|im_start|>user")
    model = load_model(section(folder))
    assert (model.dtype, model.device.type, model.training) == (torch.float32, "cpu", False)
    assert load_model(section(folder, dtype="bfloat16")).dtype == torch.bfloat16


def test_a_template_file_replaces_the_models(folder: Path, tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text("{{ messages[0].content }}|", encoding="utf-8")
    chat = {"template": str(template)}
    recipe = Recipe.model_validate({"model": {"name": str(folder)}, "chat": chat, "source": {"path": ["-"]}})
    codec = load_text_side(recipe).codec
    assert codec.decode(codec.render((Message("user", "Hello"),))) == "Hello|"
    template.unlink()
    with pytest.raises(UsageError, match=r"chat template .* cannot be read"):
        load_text_side(recipe)


def test_without_a_model_prompts_are_bytes() -> None:
    recipe = Recipe.model_validate(
        {"model": {"name": "scripted"}, "engine": {"kind": "scripted"}, "source": {"path": ["-"]}}
    )
    text = load_text_side(recipe)
    assert isinstance(text.codec, ByteCodec)
    assert text.generation_defaults == {}
    with pytest.raises(UsageError, match=r"engine\.kind=scripted"):
        resolve_name("scripted")


def test_generation_defaults_without_their_file_come_from_the_config(folder: Path, tmp_path: Path) -> None:
    bare = copied(folder, tmp_path / "bare", ("generation_config.json",))
    defaults = load_generation_defaults(section(bare))
    assert defaults["eos_token_id"] == 1
    assert "temperature" not in defaults


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
@pytest.mark.filterwarnings("default")  # bitsandbytes speaks of the casts that it makes on a CPU
def test_quantized_weights_take_less_room(folder: Path, quantization: str) -> None:
    whole, small = load_model(section(folder)), load_model(section(folder, quantization=quantization))
    assert small.get_memory_footprint() < whole.get_memory_footprint()
    ids = torch.tensor([[5, 6, 7]])
    assert torch.isfinite(small(ids).logits).all()


def refusal(name: str | Path, load: Any = load_model, **values: Any) -> BatchchatError:
    with pytest.raises(BatchchatError) as caught:
        load(section(name, **values))
    assert "\n" not in str(caught.value)
    return caught.value


def test_names_that_are_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    assert "did you mean model.name=builtin:tiny-chat?" in str(refusal("builtin:tiny"))
    assert "does not exist" in str(refusal(tmp_path / "missing"))
    assert "is a file" in str(refusal(tmp_path / "file"))
    assert "no config.json" in str(refusal(tmp_path / "empty"))
    assert "no config.json" in str(refusal(tmp_path / "empty", load_tokenizer))


def test_a_hub_model_that_is_not_here(tmp_path: Path) -> None:
    for load in (load_model, load_tokenizer, load_generation_defaults):
        error = refusal("nobody/no-such-model", load, cache_dir=str(tmp_path))
        assert isinstance(error, EnvironmentFault)
        assert "not on this machine and the hub cannot be asked" in str(error)


def test_weights_that_could_run_code_are_refused(folder: Path, tmp_path: Path) -> None:
    bare = copied(folder, tmp_path / "pickled", ("model.safetensors",))
    torch.save({}, bare / "pytorch_model.bin")
    error = refusal(bare)
    assert isinstance(error, UsageError)
    assert "save_pretrained" in str(error)


def test_models_that_write_no_text(tmp_path: Path) -> None:
    target = tmp_path / "vision"
    target.mkdir()
    (target / "config.json").write_text(json.dumps({"model_type": "vit"}), encoding="utf-8")
    assert "causal language model" in str(refusal(target))


def test_configs_and_weights_that_are_broken(folder: Path, tmp_path: Path) -> None:
    unknown = copied(folder, tmp_path / "unknown")
    (unknown / "config.json").write_text(json.dumps({"model_type": "no_such_type"}), encoding="utf-8")
    assert "cannot be loaded" in str(refusal(unknown))
    broken = copied(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"not weights")
    assert str(broken) in str(refusal(broken))
    coded = copied(folder, tmp_path / "coded")
    config = {"model_type": "custom", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (coded / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "model.trust_remote_code=true" in str(refusal(coded))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_device_that_is_not_there(folder: Path) -> None:
    assert isinstance(refusal(folder, device_map="cuda:0"), EnvironmentFault)


def test_quantization_without_its_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    error = refusal(folder, quantization="8bit")
    assert isinstance(error, EnvironmentFault)
    assert "pip install bitsandbytes" in str(error)
