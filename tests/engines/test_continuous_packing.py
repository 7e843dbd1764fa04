"""Packed weights give the plain product's numbers, and leave the model as it was."""

from __future__ import annotations

import copy

import pytest
import torch

from batchchat.engines.continuous.admission.self_check import self_check
from batchchat.engines.cpu.kernels import compiled
from batchchat.engines.cpu.preparation import prepare
from batchchat.engines.rounding import tolerance
from batchchat.prompts import TokenizerCodec
from batchchat.schedule import Feed
from tests.support.architectures import ARCHITECTURES
from tests.support.engines import continuous
from tests.support.zoo import Clock, byte_bpe, llama, request

CODEC = TokenizerCodec(byte_bpe())
IDS = torch.arange(5, 40)[None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox", "mixtral"])
def test_logits_are_those_of_the_plain_model(name: str, dtype: torch.dtype) -> None:
    model = next(a for a in ARCHITECTURES if a.name == name).model().to(dtype)
    with torch.inference_mode():
        plain = model(IDS).logits
        undo = prepare(model)
        packed = model(IDS).logits
        undo()
        again = model(IDS).logits
    assert float((packed - plain).abs().max() / plain.std()) < tolerance(dtype)
    assert torch.equal(again, plain)


def test_products_over_one_input_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(llama(layers=2))
    calls = []
    undo = prepare(model)
    packed = [module for module in model.modules() if "forward" in vars(module)]
    per_layer = 7 + 3 if compiled() else 7  # linear layers, two norms and the gated layer
    assert len(packed) == 2 * per_layer + (2 if compiled() else 1)
    layer = model.model.layers[0]
    hidden = torch.randn(1, 3, 32)
    with torch.inference_mode():
        found = [layer.self_attn.q_proj(hidden), layer.self_attn.k_proj(hidden), layer.self_attn.v_proj(hidden)]
        calls = [part.untyped_storage().data_ptr() for part in found]
        other = layer.self_attn.q_proj(hidden + 1)
    assert len(set(calls)) == 1, "the three are parts of one product"
    undo()
    with torch.inference_mode():
        torch.testing.assert_close(found[1], layer.self_attn.k_proj(hidden))
        torch.testing.assert_close(other, layer.self_attn.q_proj(hidden + 1))


def test_strict_mode_keeps_its_promise_with_packed_weights() -> None:
    model = copy.deepcopy(llama(layers=2)).to(torch.bfloat16)
    prepare(model)
    assert self_check(model).reason is None
    requests = [request(n, tuple(range(5 + n, 45 + 3 * n)), max_new_tokens=12, logprobs=1) for n in range(9)]

    def answers(rows: int) -> dict[int, object]:
        engine = continuous(model, Clock(), max_rows=rows, batch_invariant=True)
        return {d.request.index: (d.token_ids, d.logprobs) for d in engine.run(Feed(iter(requests), look_ahead=9))}

    assert answers(9) == answers(1)


def test_a_quantized_or_foreign_layer_is_left_alone() -> None:
    class Special(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(Special(8, 8), torch.nn.Linear(8, 8))
    prepare(model)
    assert "forward" not in vars(model[0])
    assert "forward" in vars(model[1])
