"""The linear layers of a model that bitsandbytes quantized."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_HOME, _KINDS = "bitsandbytes.nn.modules", {"Linear8bitLt", "Linear4bit"}
_LAYS_OUT = "support_avx512bf16_for_cpu"
_CLOSE = 0.01
"""Part of the weights' size by which two ways to widen them may differ: rounding is less, a wrong scale far more."""


def quantized_layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if is_quantized(module)]


def is_quantized(module: Any) -> bool:
    return type(module).__module__ == _HOME and type(module).__name__ in _KINDS


def mixes_rows(model: Any) -> bool:
    """Whether a layer computes as bitsandbytes itself does in 8 bits: in a column in which any row has a large number,
    all rows are multiplied as they are, so that a row's numbers depend on the others."""
    return any(
        type(layer).__name__ == "Linear8bitLt" and "forward" not in vars(layer) and layer.state.threshold > 0
        for layer in quantized_layers(model)
    )


class Widened:
    """The product of a 4-bit layer by its definition: its weights are widened at each call, by torch's operators."""

    def __init__(self, layer: Any):
        self._layer = layer

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        dtype = self._layer.compute_dtype or x.dtype
        bias = None if self._layer.bias is None else self._layer.bias.to(dtype)
        return functional.linear(x.to(dtype), _widened(self._layer).to(dtype), bias).to(x.dtype)


def correct_4_bits(model: Any) -> None:
    """Have 4-bit layers on the CPU compute what their weights say, in all cases and on every processor.

    bitsandbytes' code for CPUs counts blocks of weights by row, though they go on from one row to the next: with rows
    that are no whole number of blocks it may take the scales of others (seen in 0.50.2, of 96 numbers in blocks of 64).
    Those layers are computed by their definition. On processors that multiply pairs in bfloat16, a layer is laid out
    anew at its first call: its scales are rounded for good, it fails unless it has a multiple of 32 outputs, and a
    prompt takes seven times as long. No layer is.
    """
    for layer in quantized_layers(model):
        if hasattr(layer, _LAYS_OUT):
            setattr(layer, _LAYS_OUT, False)
        if _is_misread(layer):
            layer.forward = Widened(layer)


def _is_misread(layer: Any) -> bool:
    state = getattr(layer.weight, "quant_state", None)
    if state is None or layer.weight.device.type != "cpu" or layer.in_features % state.blocksize == 0:
        return False
    from bitsandbytes.functional import dequantize_4bit

    wanted = _widened(layer)
    found = dequantize_4bit(layer.weight.data, state).float()
    return bool((found - wanted).norm() > _CLOSE * wanted.norm())


def _widened(layer: Any) -> torch.Tensor:
    """float32 `[outputs, size]`: each number's code, times the scale of its block; blocks are of all numbers in a row.

    Source: https://arxiv.org/abs/2305.14314
    """
    from bitsandbytes.functional import dequantize_blockwise

    state = layer.weight.quant_state
    pairs = layer.weight.data.view(torch.uint8).flatten()
    codes = torch.stack((pairs >> 4, pairs & 15), dim=1).flatten()[: state.shape.numel()]
    scales = dequantize_blockwise(state.absmax, state.state2) + state.offset if state.nested else state.absmax
    each = scales.float().repeat_interleave(state.blocksize)[: len(codes)]
    widened: torch.Tensor = (state.code.float()[codes.int()] * each).view(state.shape)
    return widened
