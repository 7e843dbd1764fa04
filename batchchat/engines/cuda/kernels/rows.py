"""Root-mean-square norms with the residual's addition, and gates: one program per row, or per piece of one."""

from __future__ import annotations

import triton
import triton.language as tl

_ROUND_FIRST = tl.constexpr(0)
_ROUND_LAST = tl.constexpr(1)
_LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def scaled(numbers, scale, kind: tl.constexpr, FORM: tl.constexpr):
    """Numbers of size 1 by their weights, in a form of `layers.FORMS`."""
    if FORM == _ROUND_FIRST:
        return numbers.to(kind).to(tl.float32) * scale
    elif FORM == _ROUND_LAST:
        return numbers * scale
    else:
        return numbers * (1.0 + scale)


@triton.jit
def norm(
    out,
    summed,
    x,
    residual,
    weight,
    x_row,
    residual_row,
    size,
    epsilon,
    FORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Program `(row)`: a row of `x`, plus that of the residual, which is kept in `summed`, over the root of its mean
    square, times the weight."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    mask = places < size
    kind = out.dtype.element_ty
    numbers = tl.load(x + row * x_row + places, mask=mask, other=0.0).to(tl.float32)
    if RESIDUAL:
        numbers += tl.load(residual + row * residual_row + places, mask=mask, other=0.0).to(tl.float32)
        kept = numbers.to(kind)
        tl.store(summed + row * size + places, kept, mask=mask)
        numbers = kept.to(tl.float32)  # as it is read by who adds to it next
    mean = tl.sum(numbers * numbers, 0) / size
    numbers = numbers * (1.0 / tl.sqrt(mean + epsilon))
    scale = tl.load(weight + places, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + row * size + places, scaled(numbers, scale, kind, FORM).to(kind), mask=mask)


@triton.jit
def gate(out, gates, ups, gate_row, up_row, size, GELU: tl.constexpr, BLOCK: tl.constexpr):
    """Program `(row, piece)`: SiLU, or GELU by its tanh form, of the gate, times the other half."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = places < size
    kind = out.dtype.element_ty
    x = tl.load(gates + row * gate_row + places, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(ups + row * up_row + places, mask=mask, other=0.0).to(tl.float32)
    if GELU:  # x * (1 + tanh(z)) / 2 is x * sigmoid(2z)
        z = 2.0 * 0.7978845608028654 * (x + 0.044715 * x * x * x)
    else:
        z = x
    open_ = x / (1.0 + tl.exp2(-z * _LOG2E))
    tl.store(out + row * size + places, (open_.to(kind).to(tl.float32) * up).to(kind), mask=mask)
