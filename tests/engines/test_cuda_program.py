"""Models of the common form by the program for GPUs, on the CPU, with the kernels in Triton's interpreter."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch

from batchchat.engines.continuous.model_runner import PROGRAMS
from batchchat.engines.continuous.paged.backends import BACKENDS, tried
from batchchat.engines.cuda import acceleration, layers, paged
from batchchat.schedule import Feed
from tests.support.architectures import ARCHITECTURES, Architecture
from tests.support.engines import continuous
from tests.support.pages import needs_interpreter
from tests.support.requests import prompt
from tests.support.zoo import Clock, request

OF_THE_FORM = {
    *("llama", "qwen3", "mistral, window 50", "gemma2, window 50", "phi3, half of each head turned"),
    *("olmo2", "granite", "smollm3", "gpt_oss, window 50"),
}
OF_OTHERS = {"starcoder2", "deepseek_v2"}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Attention is by torch's operators: its kernels have tests of their own, and are slow in the interpreter."""
    monkeypatch.setitem(BACKENDS, "cpu", "batchchat.engines.cuda.backend")
    monkeypatch.setattr(paged, "unsupported", lambda kind: "It is left out here.")
    tried.cache_clear()
    yield
    tried.cache_clear()


def named(names: set[str]) -> list[Architecture]:
    found = [architecture for architecture in ARCHITECTURES if architecture.name in names]
    assert len(found) == len(names)
    return found


def answers(model: object) -> dict[object, list[int]]:
    engine = continuous(model, Clock(), max_rows=3, max_tokens=4096, cache="paged")
    asked = [request(index, prompt(index, 20 * index + 1), max_new_tokens=3) for index in range(3)]
    found = {one.request.key: one.token_ids for one in engine.run(Feed(iter(asked), look_ahead=100))}
    engine.close()
    return found


@needs_interpreter
@pytest.mark.parametrize("architecture", named(OF_THE_FORM), ids=lambda one: one.name)
def test_a_program_computes_what_the_modules_compute(architecture: Architecture) -> None:
    model = architecture.model()
    wanted = answers(copy.deepcopy(model))
    undo = acceleration.prepare(model)
    assert model in PROGRAMS
    assert answers(model) == wanted
    undo()
    assert model not in PROGRAMS


@needs_interpreter
@pytest.mark.parametrize("architecture", named(OF_OTHERS), ids=lambda one: one.name)
def test_others_are_computed_by_their_modules(architecture: Architecture) -> None:
    model = architecture.model()
    acceleration.prepare(model)
    assert model not in PROGRAMS


@needs_interpreter
def test_products_are_joined_in_place() -> None:
    (architecture,) = named({"qwen2"})
    model = architecture.model()
    biases = [layer.self_attn.q_proj.bias.clone() for layer in model.model.layers]
    acceleration.prepare(model)
    program = PROGRAMS[model]
    storages = {weight.untyped_storage().data_ptr() for weight in program.weights()}
    for layer, bias in zip(model.model.layers, biases, strict=True):
        linears = (layer.self_attn.q_proj, layer.self_attn.v_proj, layer.mlp.gate_proj, layer.mlp.down_proj)
        assert {linear.weight.untyped_storage().data_ptr() for linear in linears} <= storages
        assert torch.equal(layer.self_attn.q_proj.bias, bias)


@needs_interpreter
def test_a_program_with_other_numbers_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    (architecture,) = named({"llama"})
    model = architecture.model()
    add = layers.add_rms_norm
    monkeypatch.setattr(layers, "add_rms_norm", lambda x, *others: add(1.1 * x, *others))
    acceleration.prepare(model)
    assert model not in PROGRAMS
