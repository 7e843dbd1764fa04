"""Mixtures of experts by packed products: what the modules give, and the same bits whoever else is computed."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.engines.cpu.experts import fused_experts, fused_router, packed_products
from batchchat.engines.cpu.packing import Choice
from batchchat.engines.cpu.preparation import prepare
from tests.support.architectures import ARCHITECTURES

DTYPES = (torch.float32, torch.bfloat16)
CLOSE = {torch.float32: {"rtol": 1e-4, "atol": 1e-5}, torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2}}
ROUTED = ("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss, window 50")


@cache
def routed(name: str, dtype: torch.dtype) -> tuple[Any, Any, Any, Any]:
    """A router and experts, and what computes them in their place."""
    model = next(one for one in ARCHITECTURES if one.name == name).model().to(dtype)
    for own in model.parameters():
        own.data.uniform_(-0.5, 0.5)  # biases too
    block = model.model.layers[0].mlp
    router = getattr(block, "gate", None) or block.router
    return router, block.experts, fused_router(router, Choice({})), fused_experts(block.experts, Choice({}))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ROUTED)
@torch.inference_mode()
def test_experts_are_those_of_the_models(name: str, dtype: torch.dtype) -> None:
    router, experts, route, compute = routed(name, dtype)
    hidden = torch.randn(70, 32).to(dtype)
    logits, scores, chosen = route(hidden)
    for found, right in zip((logits, scores), router(hidden), strict=False):
        torch.testing.assert_close(found, right, **CLOSE[dtype])
    found, right = compute(hidden, chosen, scores), experts(hidden, chosen, scores)
    tolerance = 5 * CLOSE[dtype]["rtol"] * float(right.float().std())
    torch.testing.assert_close(found, right, rtol=0, atol=tolerance)


@given(
    name=st.sampled_from(ROUTED),
    dtype=st.sampled_from(DTYPES),
    rows=st.lists(st.integers(0, 69), min_size=2, max_size=40),
)
@settings(max_examples=40, deadline=None)
@torch.inference_mode()
def test_a_token_has_the_same_bits_among_any_others_that_choose_its_experts(
    name: str, dtype: torch.dtype, rows: list[int]
) -> None:
    _, _, route, compute = routed(name, dtype)
    hidden = torch.randn(70, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
    logits, scores, chosen = route(hidden)
    own_logits, own_scores, own_chosen = route(hidden[rows])
    assert torch.equal(own_logits, logits[rows])
    assert torch.equal(compute(hidden[rows], own_chosen, own_scores), compute(hidden, chosen, scores)[rows])


def test_experts_and_routers_that_do_something_else_are_left_alone() -> None:
    block = next(one for one in ARCHITECTURES if one.name == "mixtral").model().model.layers[0].mlp
    block.experts.act_fn = torch.nn.ReLU()
    assert fused_experts(block.experts, Choice({})) is None
    block.gate.forward = lambda x: (x, *type(block.gate).forward(block.gate, -x)[1:])
    assert fused_router(block.gate, Choice({})) is None


def test_a_strict_run_goes_on_with_the_experts_products_that_it_began_with() -> None:
    architecture = next(one for one in ARCHITECTURES if one.name == "mixtral")
    kept: dict[str, Any] = {}
    prepare(architecture.model(), True, kept)
    assert kept["products"]
    kept["products"] = dict.fromkeys(kept["products"], "torch")
    model = architecture.model()
    prepare(model, True, kept)
    names = {product.name for product in packed_products(model)}
    assert names == {"torch"}
    assert set(kept["products"].values()) == {"torch"}
