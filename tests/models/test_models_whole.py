"""A model is loaded whole or not at all: checkpoints and adapters that fit in part only, and files that are broken."""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from batchchat.errors import BatchchatError, EnvironmentFault, UsageError
from batchchat.models import load_generation_defaults, load_model
from batchchat.prompts import ByteCodec, resolve_settings
from batchchat.recipe.generation import GenerationSection
from batchchat.recipe.schema import ModelSection
from tests.conftest import Command, write_jsonl
from tests.support import zoo

IDS = torch.tensor([[5, 6, 7, 8, 9, 10]])
WEIGHTS = "model.safetensors"
ADAPTER = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small"
    zoo.byte_bpe().save_pretrained(path)
    zoo.llama(seed=3).save_pretrained(path)
    return path


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """The model, to be broken."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def section(name: str | Path, **values: Any) -> ModelSection:
    return ModelSection.model_validate({"name": str(name), **values})


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits.float()


def refusal(name: str | Path, load: Callable[[Any], Any] = load_model, **values: Any) -> BatchchatError:
    with pytest.raises(BatchchatError) as caught:
        load(section(name, **values))
    assert "\n" not in str(caught.value)
    assert ";" in str(caught.value), "it says what to do"
    return caught.value


def change_config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **values}), encoding="utf-8")


def change_weights(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


# the base


def test_a_config_with_fewer_layers_than_the_checkpoint(copy: Path) -> None:
    change_config(copy, num_hidden_layers=1)
    error = refusal(copy)
    assert isinstance(error, UsageError)
    assert "holds 9 weights (model.layers.1.input_layernorm.weight, " in str(error)
    assert "no place for" in str(error)


def test_a_config_with_more_layers_than_the_checkpoint(copy: Path) -> None:
    change_config(copy, num_hidden_layers=3)
    assert "lacks 9 of the model's weights (model.layers.2." in str(refusal(copy))


@pytest.mark.parametrize("values", [{"intermediate_size": 32}, {"vocab_size": 400}, {"num_key_value_heads": 4}])
def test_other_sizes(copy: Path, values: dict[str, int]) -> None:
    change_config(copy, **values)
    error = refusal(copy)
    assert isinstance(error, UsageError)
    assert "in other sizes than its config.json says" in str(error)
    assert ".weight" in str(error)
    assert "×" in str(error)


def test_a_weight_that_the_architecture_does_not_have(copy: Path) -> None:
    change_weights(copy / WEIGHTS, lambda held: held.update({"model.layers.0.self_attn.q_proj.bias": torch.ones(32)}))
    assert "1 weight (model.layers.0.self_attn.q_proj.bias)" in str(refusal(copy))


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.self_attn.rotary_emb.inv_freq",
        "vision_tower.layers.0.weight",
        "model.vision_model.encoder.layers.0.mlp.weight",
        "multi_modal_projector.linear.weight",
        "mtp.layers.0.mlp.up_proj.weight",
        "v_head.summary.weight",
        "model.layers.0.self_attn.k_scale",
        "lm_head.weight",
    ],
)
def test_weights_that_change_no_answer_are_let_be(folder: Path, copy: Path, name: str) -> None:
    extra = (
        load_file(copy / WEIGHTS)["model.embed_tokens.weight"].clone() if name == "lm_head.weight" else torch.ones(4)
    )
    change_weights(copy / WEIGHTS, lambda held: held.update({name: extra}))
    assert torch.equal(logits(load_model(section(copy))), logits(load_model(section(folder))))


def test_layers_that_guess_further_tokens_are_let_be(folder: Path, copy: Path) -> None:
    further = {"model.layers.2.mlp.up_proj.weight": torch.ones(4)}
    change_weights(copy / WEIGHTS, lambda held: held.update(further))
    assert "model.layers.2" in str(refusal(copy))
    change_config(copy, num_nextn_predict_layers=1)
    assert torch.equal(logits(load_model(section(copy))), logits(load_model(section(folder))))


def test_masks_that_gpt2_once_saved_are_let_be(tmp_path: Path) -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=480, n_embd=32, n_layer=2, n_head=4, n_positions=64)).eval()
    model.save_pretrained(tmp_path)
    change_weights(
        tmp_path / WEIGHTS, lambda held: held.update({"transformer.h.0.attn.bias": torch.ones(1, 1, 64, 64).tril()})
    )
    assert torch.equal(logits(load_model(section(tmp_path))), logits(model))


def test_a_missing_shard(tmp_path: Path) -> None:
    zoo.llama(seed=3).save_pretrained(tmp_path, max_shard_size="40KB")
    first = min(tmp_path.glob("*.safetensors"))
    count = len(list(tmp_path.glob("*.safetensors")))
    first.unlink()
    error = refusal(tmp_path)
    assert isinstance(error, UsageError)
    assert f"lacks 1 of its {count} weight files ({first.name})" in str(error)
    (tmp_path / "model.safetensors.index.json").write_text("{", encoding="utf-8")
    assert "is no index of a checkpoint" in str(refusal(tmp_path))
    (tmp_path / "model.safetensors.index.json").unlink()
    assert "holds neither model.safetensors nor" in str(refusal(tmp_path))


@pytest.mark.parametrize("kept", [0, 7, 3000, -5])
def test_a_weight_file_that_is_cut_off(copy: Path, kept: int) -> None:
    content = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(content[:kept])
    assert "is damaged or cut off" in str(refusal(copy))


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("llava", "a vision-language model, and batchchat runs models of text alone"),
        ("qwen2_vl", "a vision-language model"),
        ("t5", "reads with an encoder"),
        ("bart", "reads with an encoder"),
        ("bert", "fills gaps"),
        ("vit", "writes no text"),
    ],
)
def test_models_of_another_kind(tmp_path: Path, kind: str, what: str) -> None:
    CONFIG_MAPPING[kind]().save_pretrained(tmp_path)
    error = refusal(tmp_path)
    assert isinstance(error, UsageError)
    assert what in str(error)
    assert repr(kind) in str(error)


# generation_config.json


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"temperature": 0.6', "generation_config.json of the model"),
        ("\udcff\udcfe", "generation_config.json of the model"),
        ("[1, 2]", "generation_config.json of the model"),
        ('{"eos_token_id": "</s>"}', "its eos_token_id is '</s>'"),
        ('{"eos_token_id": [1, null]}', "no token id"),
    ],
)
def test_a_generation_config_that_is_broken(copy: Path, content: str, words: str) -> None:
    (copy / "generation_config.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    error = refusal(copy, load_generation_defaults)
    assert isinstance(error, UsageError)
    assert words in str(error)


@pytest.mark.parametrize("values", [{"top_p": 3}, {"temperature": "hot"}, {"top_k": 2.5}, {"repetition_penalty": 0}])
def test_values_of_the_model_that_are_out_of_range(values: dict[str, Any]) -> None:
    name = next(iter(values))
    with pytest.raises(UsageError, match=rf"sets {name}=.* is not valid.*generation\.{name}"):
        resolve_settings(GenerationSection(), {}, {"do_sample": True, **values}, ByteCodec())
    off = GenerationSection(model_defaults=False)
    assert resolve_settings(off, {}, {"do_sample": True, **values}, ByteCodec()).temperature == 0


def test_the_command_line_says_it_in_one_sentence(copy: Path, tmp_path: Path, batchchat: Command) -> None:
    recipe = tmp_path / "recipe.json"
    source = write_jsonl(tmp_path / "in.jsonl", [{"prompt": "Hello"}])
    sink = {"directory": str(tmp_path / "run")}
    values = {"model": {"name": str(copy)}, "source": {"path": str(source)}, "sink": sink}
    values["generation"] = {"max_new_tokens": 4}
    recipe.write_text(json.dumps(values), encoding="utf-8")
    change_config(copy, num_hidden_layers=1)
    for change in (lambda: None, lambda: (copy / "generation_config.json").write_text("{", encoding="utf-8")):
        change()
        done = batchchat("run", recipe)
        assert done.code == 2
        assert "Traceback" not in done.err
        assert done.err.strip().splitlines()[-1].startswith("batchchat: the ")


# a hub that cannot be asked


@pytest.mark.parametrize("offline", [True, False])
def test_an_unknown_hub_id_is_answered_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    def lost(*_: Any, **__: Any) -> Any:
        if offline:
            raise socket.gaierror(-2, "Name or service not known")
        time.sleep(6)  # a resolver that says nothing
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", lost)
    began = time.monotonic()
    for number, kind in enumerate(("name", "adapter")):
        values = {kind: f"nobody/unknown-{offline}-{number}"}
        if kind == "adapter":
            zoo.llama(seed=3).save_pretrained(tmp_path)
        error = refusal(values.pop("name", str(tmp_path)), cache_dir=str(tmp_path / "cache"), **values)
        assert isinstance(error, EnvironmentFault)
        assert "is not on this machine and the hub cannot be asked" in str(error)
        assert time.monotonic() - began < 5 * (number + 1)
        if not offline:
            break


# adapters


peft = pytest.importorskip("peft", reason="adapters need peft: pip install 'batchchat[peft]'")

KINDS = {
    "lora": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]),
    "dora": lambda: peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], use_dora=True),
    "rslora": lambda: peft.LoraConfig(r=4, target_modules=["o_proj"], use_rslora=True, lora_alpha=3),
    "head": lambda: peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["norm"]),
    "ia3": lambda: peft.IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
    "loha": lambda: peft.LoHaConfig(r=4, target_modules=["q_proj"]),
    "tokens": lambda: peft.LoraConfig(r=4, target_modules=["q_proj"], trainable_token_indices=[5, 7]),
}


def trained(folder: Path, target: Path, config: Any) -> torch.Tensor:
    """An adapter with random weights, and the logits that peft computes with it."""
    config.task_type = "CAUSAL_LM"
    model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(folder), config).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(torch.randn_like(weight) * 0.3)
    model.save_pretrained(target, save_embedding_layers=False)
    return logits(model)


@pytest.mark.filterwarnings("ignore")  # peft's own, while it trains
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adapter_answers_as_peft_computes_it(folder: Path, tmp_path: Path, kind: str) -> None:
    expected = trained(folder, tmp_path, KINDS[kind]())
    plain = load_model(section(folder))
    assert (expected - logits(plain)).abs().max() > 0.1
    for merged in (False, True):
        model = load_model(section(folder, adapter=str(tmp_path), merge_adapter=merged))
        assert type(model) is LlamaForCausalLM
        assert torch.allclose(logits(model), expected, atol=1e-4)


@pytest.fixture
def lora(folder: Path, tmp_path: Path) -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(folder, tmp_path / "lora", KINDS["lora"]())
    return tmp_path / "lora"


def rename(old: str, new: str) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(held: dict[str, torch.Tensor]) -> None:
        for key in list(held):
            held[key.replace(old, new)] = held.pop(key)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            rename("base_model.model.model.", "base_model.model.decoder."),
            ("8 weights", "are unknown to it", "are missing"),
        ),
        (rename("layers.1.", "layers.7."), ("4 weights", "layers.7", "are missing")),
        (lambda held: held.pop(max(held)), ("1 weight (", "v_proj.lora_B", "are missing")),
        (
            lambda held: held.update({"base_model.model.model.x.weight": torch.ones(2)}),
            ("1 weight (", "model.x.weight"),
        ),
        (lambda held: held.update({min(held): torch.ones(9, 32)}), ("1 weight (", "have another size")),
        (lambda held: held.clear(), ("8 weights", "are missing")),
    ],
)
@pytest.mark.parametrize("merged", [False, True])
def test_an_adapter_that_fits_in_part(
    folder: Path, lora: Path, change: Any, words: tuple[str, ...], merged: bool
) -> None:
    change_weights(lora / ADAPTER, change)
    error = refusal(folder, adapter=str(lora), merge_adapter=merged)
    assert isinstance(error, UsageError)
    assert "does not fit the model" in str(error)
    for word in words:
        assert word in str(error)


def test_an_adapter_of_a_larger_model(folder: Path, lora: Path, tmp_path: Path) -> None:
    zoo.llama(seed=3, layers=1).save_pretrained(tmp_path / "one")
    assert "4 weights (base_model.model.model.layers.1" in str(refusal(tmp_path / "one", adapter=str(lora)))
    zoo.llama(seed=3, layers=3).save_pretrained(tmp_path / "three")
    assert "4 weights (base_model.model.model.layers.2" in str(refusal(tmp_path / "three", adapter=str(lora)))


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_merged_or_put_in_layers_says_so(folder: Path, tmp_path: Path) -> None:
    config = peft.LoraConfig(r=4, target_modules=["q_proj"], lora_bias=True)
    expected = trained(folder, tmp_path / "bias", config)
    assert torch.allclose(logits(load_model(section(folder, adapter=str(tmp_path / "bias")))), expected, atol=1e-5)
    error = refusal(folder, adapter=str(tmp_path / "bias"), merge_adapter=True)
    assert "cannot be added to the weights" in str(error)
    assert "model.merge_adapter=false" in str(error)
    prompts = peft.get_peft_model(
        LlamaForCausalLM.from_pretrained(folder), peft.PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM")
    )
    prompts.save_pretrained(tmp_path / "prompts")
    assert "PROMPT_TUNING" in str(refusal(folder, adapter=str(tmp_path / "prompts")))


@pytest.mark.filterwarnings("ignore")
def test_tied_embeddings_that_only_one_side_adapts_are_not_merged(folder: Path, tmp_path: Path) -> None:
    expected = trained(folder, tmp_path, peft.LoraConfig(r=4, target_modules=["embed_tokens"]))
    assert torch.allclose(logits(load_model(section(folder, adapter=str(tmp_path)))), expected, atol=1e-5)
    assert "answers otherwise than peft computes it" in str(refusal(folder, adapter=str(tmp_path), merge_adapter=True))


def test_an_adapter_that_lies_in_the_models_folder(copy: Path, lora: Path) -> None:
    for file in lora.glob("adapter_*"):
        shutil.copy(file, copy)
    assert "to a folder of their own" in str(refusal(copy))


def test_an_adapter_folder_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    assert "does not exist" in str(refusal(folder, adapter=str(tmp_path / "none")))
