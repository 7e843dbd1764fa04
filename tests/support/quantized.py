"""Linear layers of bitsandbytes, made here, and their products by definition."""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

THRESHOLD = 6.0


def in_8_bits(linear: torch.nn.Linear, threshold: float = THRESHOLD) -> Any:
    layer = Linear8bitLt(linear.in_features, linear.out_features, linear.bias is not None, False, threshold)
    layer.weight = Int8Params(linear.weight.data.clone(), requires_grad=False, has_fp16_weights=False)
    layer.bias = linear.bias
    return layer.to("cpu").eval()


def in_4_bits(
    linear: torch.nn.Linear,
    kind: str = "nf4",
    block: int = 64,
    nested: bool = False,
    compute: torch.dtype = torch.bfloat16,
) -> Any:
    layer = Linear4bit(linear.in_features, linear.out_features, linear.bias is not None, compute, nested, kind)
    layer.weight = Params4bit(linear.weight.data.clone(), False, None, block, nested, kind, torch.uint8, layer)
    layer.bias = linear.bias
    return layer.to("cpu").eval()


@torch.no_grad()
def by_definition(layer: Any, rows: torch.Tensor) -> torch.Tensor:
    """The product of rows `[rows, size]` in double precision, but for the rounding of what is multiplied."""
    bias = 0 if layer.bias is None else layer.bias.double()
    if isinstance(layer, Linear8bitLt):
        numbers, scales = layer.weight.data.double(), _scales(layer).double()
        half = rows.half()
        large = half.abs() >= layer.state.threshold
        top = half.masked_fill(large, 0).abs().amax(1, keepdim=True).float()
        small = torch.where(top > 0, (half.masked_fill(large, 0) * (127 / top)).round(), 0).double()
        weight = (numbers * scales[:, None] / 127).to(rows.dtype).double()
        own = small @ numbers.T * (top.double() * scales) / 127**2
        return own + rows.masked_fill(~large, 0).double() @ weight.T + bias
    state = layer.weight.quant_state
    pairs = layer.weight.data.flatten()
    codes = torch.stack((pairs >> 4, pairs & 15), dim=1).flatten()[: state.shape.numel()]
    scales = state.absmax
    if state.nested:
        second = state.state2
        own = second.absmax.repeat_interleave(second.blocksize)[: len(scales)]
        scales = second.code[scales.long()] * own + state.offset
    each = scales.repeat_interleave(state.blocksize)[: len(codes)]
    weight = (state.code[codes.long()] * each).view(state.shape).to(layer.compute_dtype)
    return rows.to(layer.compute_dtype).double() @ weight.double().T + bias


def _scales(layer: Any) -> torch.Tensor:
    scales: torch.Tensor = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    return scales
