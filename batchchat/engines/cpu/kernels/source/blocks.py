"""Parts of products with quantized weights, for each set of vector instructions: exact ones in bytes where the
processor multiplies those, and what becomes of their sums."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import BFLOAT16
from batchchat.engines.cpu.kernels.source.vectors import sums
from batchchat.engines.cpu.kernels.source.writing import after, like, load, pointer, rounded_to, splat, whole

_FLOAT, _BYTE, _INT, _WORD = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
PER_127_SQUARED = 6.200124e-05
"""As bitsandbytes has it."""


@intrinsic(prefer_literal=True)
def multiply_bytes(
    _: Any, source: Any, stride: Any, weight: Any, weight_stride: Any, steps: Any, out: Any,
    rows: Any, outputs: Any, lanes: Any,
) -> Any:  # fmt: skip
    """Products of `rows` rows of bytes without a sign at `source` with `outputs` rows of weights, bytes with one,
    `steps` vectors long, to `out` as whole numbers of 32 bits: rows after rows, with room for a multiple of `lanes`.
    `source`, `weight` and `out` are addresses, strides are bytes, and the last three constants."""
    num_rows, num_outputs, num_lanes = rows.literal_value, outputs.literal_value, lanes.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, row_bytes, first, weight_bytes, count, result = arguments[:6]
        kind = ir.VectorType(_INT, num_lanes)
        name = f"llvm.x86.avx512.vpdpbusd.{32 * num_lanes}"
        dot = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        nothing = ir.Constant(kind, [0] * num_lanes)
        totals = [cgutils.alloca_once(builder, kind) for _ in range(num_rows * num_outputs)]
        for total in totals:
            builder.store(nothing, total)
        starts = [builder.add(start, builder.mul(row_bytes, ir.Constant(_WORD, n))) for n in range(num_rows)]
        firsts = [builder.add(first, builder.mul(weight_bytes, ir.Constant(_WORD, n))) for n in range(num_outputs)]
        with cgutils.for_range(builder, count) as loop:
            beyond = builder.mul(loop.index, ir.Constant(_WORD, 4 * num_lanes))
            numbers = [load(builder, builder.add(place, beyond), kind) for place in starts]
            for m, place in enumerate(firsts):
                other = load(builder, builder.add(place, beyond), kind)
                for n, row in enumerate(numbers):
                    total = totals[n * num_outputs + m]
                    builder.store(builder.call(dot, [builder.load(total), row, other]), total)
        found = [builder.load(total) for total in totals]
        found += [nothing] * (-len(found) % num_lanes)
        for n in range(0, len(found), num_lanes):
            place = pointer(builder, after(builder, result, 4 * n), kind)
            builder.store(sums(builder, found[n : n + num_lanes], builder.add), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6, rows, outputs, lanes), generate


@intrinsic(prefer_literal=True)
def finish(
    _: Any, sums: Any, row_scale: Any, scales: Any, corrections: Any, bias: Any, out: Any,
    outputs: Any, small: Any, in_bytes: Any, rounding: Any, narrow: Any,
) -> Any:  # fmt: skip
    """Write `outputs` sums of a row with their bias, rounded, as floats or `narrow`: the upper halves of floats. Those
    of `small` weights, of 8 bits, are scaled before, by the row's scale times each output's; `in_bytes` takes 128 times
    `corrections` off before that. All but `row_scale` are addresses or constants."""
    count, to = outputs.literal_value, rounding.literal_value
    kind, ints = ir.VectorType(_FLOAT, count), ir.VectorType(_INT, count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, own, factors, others, more, target = arguments[:6]
        if in_bytes.literal_value:
            excess = builder.mul(load(builder, others, ints), like(ints, 128))
            value = builder.sitofp(builder.sub(load(builder, source, ints), excess), kind)
        else:
            value = load(builder, source, kind)
        if small.literal_value:
            both = builder.fmul(splat(builder, own, count), load(builder, factors, kind))
            value = builder.fmul(builder.fmul(value, both), like(kind, PER_127_SQUARED))
        value = rounded_to(builder, builder.fadd(value, load(builder, more, kind)), to)
        if narrow.literal_value:
            halves = ir.VectorType(ir.IntType(16), count)
            bits = builder.bitcast(value if to == BFLOAT16 else rounded_to(builder, value, BFLOAT16), ints)
            value = builder.trunc(builder.lshr(bits, like(ints, 16)), halves)
        builder.store(value, pointer(builder, target, value.type), align=1)
        return context.get_dummy_value()

    parameters = types.int64, types.float32, *[types.int64] * 4
    return types.void(*parameters, outputs, small, in_bytes, rounding, narrow), generate


@intrinsic
def settled(_: Any, value: Any) -> Any:
    """A float as it is: what is computed with it is not computed with its parts, as fast arithmetic may."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], _INT)
        return builder.bitcast(builder.asm(ir.FunctionType(_INT, [_INT]), "", "=r,0", [bits], True), _FLOAT)

    return types.float32(types.float32), generate


@intrinsic(prefer_literal=True)
def rounded(_: Any, value: Any, rounding: Any) -> Any:
    """A float as the nearest one of those in `ROUNDINGS`."""
    to = rounding.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return rounded_to(builder, arguments[0], to)

    return types.float32(types.float32, rounding), generate


@intrinsic
def magnitude(_: Any, value: Any) -> Any:
    """The bits of a float without its sign: as whole numbers they are in its size's order, what is no number last."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.and_(builder.bitcast(arguments[0], _INT), ir.Constant(_INT, 0x7FFFFFFF))

    return types.int32(types.float32), generate


@intrinsic
def nearest(_: Any, value: Any) -> Any:
    """The nearest whole number to a float, ties to even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return whole(builder, arguments[0])

    return types.float32(types.float32), generate
