"""Norms and gated layers of real models by the Triton kernels, in their interpreter."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from batchchat.engines.cuda import acceleration, layers
from tests.support.architectures import ARCHITECTURES
from tests.support.pages import needs_interpreter
from tests.support.zoo import llama

IDS = torch.tensor([[5, 9, 300, 17, 21]])


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(IDS).logits
    return found


def replaced(model: nn.Module) -> set[str]:
    return {type(module).__name__ for module in model.modules() if "forward" in vars(module)}


@needs_interpreter
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("llama", {"LlamaRMSNorm", "LlamaMLP"}),
        ("qwen3", {"Qwen3RMSNorm", "Qwen3MLP"}),
        ("gemma2, window 50", {"Gemma2RMSNorm", "Gemma2MLP"}),
    ],
)
def test_a_prepared_model_computes_the_same_and_can_be_undone(name: str, kinds: set[str]) -> None:
    model = next(architecture for architecture in ARCHITECTURES if architecture.name == name).model()
    plain = logits(model)
    undo = acceleration.prepare(model)
    assert replaced(model) == kinds
    torch.testing.assert_close(logits(model), plain, atol=1e-5, rtol=1e-4)
    undo()
    assert not replaced(model)
    assert torch.equal(logits(model), plain)


@needs_interpreter
def test_what_gives_other_numbers_or_raises_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def other(x: torch.Tensor, *_: Any) -> torch.Tensor:
        return x * 1.01

    def failing(*_: Any) -> torch.Tensor:
        raise RuntimeError("ptxas fatal")

    model = copy.deepcopy(llama(layers=1))
    plain = logits(model)
    monkeypatch.setattr(layers, "rms_norm", other)
    monkeypatch.setattr(layers, "gated", failing)
    acceleration.prepare(model)
    assert not replaced(model)
    assert torch.equal(logits(model), plain)


def test_without_kernels_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceleration, "why_not", lambda device: "Triton cannot be used.")
    model = copy.deepcopy(llama(layers=1))
    acceleration.prepare(model)()
    assert not replaced(model)
    assert not acceleration.has_kernels()
