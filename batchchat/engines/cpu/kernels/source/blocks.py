"""Parts of products with quantized weights, for each set of vector instructions: exact ones in bytes where the
processor multiplies those, weights of 4 bits unpacked by looking them up, and what is rounded to what."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import BFLOAT16, FLOAT32
from batchchat.engines.cpu.kernels.source.transposing import joined, transposed_within
from batchchat.engines.cpu.kernels.source.vectors import sums

_FLOAT, _BYTE, _INT, _WORD = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
PER_127_SQUARED = 6.200124e-05
"""As bitsandbytes has it."""


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _beyond(builder: Any, address: Any, distance: int) -> Any:
    return builder.add(address, ir.Constant(_WORD, distance)) if distance else address


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(_pointer(builder, address, kind), align=1)


def _splat(builder: Any, value: Any, lanes: int) -> Any:
    kind = ir.VectorType(value.type, lanes)
    vector = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_INT, 0))
    places = ir.Constant(ir.VectorType(_INT, lanes), [0] * lanes)
    return builder.shuffle_vector(vector, vector, places)


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
            numbers = [_load(builder, builder.add(place, beyond), kind) for place in starts]
            for m, place in enumerate(firsts):
                other = _load(builder, builder.add(place, beyond), kind)
                for n, row in enumerate(numbers):
                    total = totals[n * num_outputs + m]
                    builder.store(builder.call(dot, [builder.load(total), row, other]), total)
        found = [builder.load(total) for total in totals]
        found += [nothing] * (-len(found) % num_lanes)
        for n in range(0, len(found), num_lanes):
            place = _pointer(builder, _beyond(builder, result, 4 * n), kind)
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
            excess = builder.mul(_load(builder, others, ints), _like(ints, 128))
            value = builder.sitofp(builder.sub(_load(builder, source, ints), excess), kind)
        else:
            value = _load(builder, source, kind)
        if small.literal_value:
            both = builder.fmul(_splat(builder, own, count), _load(builder, factors, kind))
            value = builder.fmul(builder.fmul(value, both), _like(kind, PER_127_SQUARED))
        value = _rounded(builder, builder.fadd(value, _load(builder, more, kind)), to)
        if narrow.literal_value:
            halves = ir.VectorType(ir.IntType(16), count)
            bits = builder.bitcast(_rounded(builder, value, BFLOAT16), ints)
            value = builder.trunc(builder.lshr(bits, _like(ints, 16)), halves)
        builder.store(value, _pointer(builder, target, value.type), align=1)
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


def _like(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


def _rounded(builder: Any, value: Any, rounding: int) -> Any:
    """A float or a vector of them as the nearest number of another type, ties to even."""
    if rounding == FLOAT32:
        return value
    floats = value.type
    ints = ir.VectorType(_INT, floats.count) if isinstance(floats, ir.VectorType) else _INT
    bits = builder.bitcast(value, ints)
    if rounding == BFLOAT16:
        odd = builder.icmp_signed("!=", builder.and_(bits, _like(ints, 1 << 16)), _like(ints, 0))
        up = builder.add(bits, builder.select(odd, _like(ints, 0x8000), _like(ints, 0x7FFF)))
        return builder.bitcast(builder.and_(up, _like(ints, -(1 << 16))), floats)
    size = builder.and_(bits, _like(ints, 0x7FFFFFFF))
    odd = builder.and_(builder.lshr(size, _like(ints, 13)), _like(ints, 1))
    near = builder.and_(builder.add(size, builder.add(odd, _like(ints, 0xFFF))), _like(ints, -(1 << 13)))
    steps = _whole(builder, builder.fmul(builder.bitcast(size, floats), _like(floats, 2.0**24)))
    tiny = builder.bitcast(builder.fmul(steps, _like(floats, 2.0**-24)), ints)
    near = builder.select(builder.icmp_unsigned("<", size, _like(ints, 0x38800000)), tiny, near)
    near = builder.select(builder.icmp_unsigned(">=", near, _like(ints, 0x47800000)), _like(ints, 0x7F800000), near)
    near = builder.select(builder.icmp_unsigned(">", size, _like(ints, 0x7F800000)), size, near)  # no number
    signed = builder.or_(near, builder.and_(bits, _like(ints, -(1 << 31))))
    return builder.bitcast(signed, floats)


@intrinsic(prefer_literal=True)
def rounded(_: Any, value: Any, rounding: Any) -> Any:
    """A float as the nearest one of those in `ROUNDINGS`."""
    to = rounding.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _rounded(builder, arguments[0], to)

    return types.float32(types.float32, rounding), generate


@intrinsic
def magnitude(_: Any, value: Any) -> Any:
    """The bits of a float without its sign: as whole numbers they are in its size's order, what is no number last."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.and_(builder.bitcast(arguments[0], _INT), ir.Constant(_INT, 0x7FFFFFFF))

    return types.int32(types.float32), generate


def _whole(builder: Any, value: Any) -> Any:
    """The nearest whole number to a float, ties to even; or of a vector of them."""
    kind = value.type
    suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind]), f"llvm.rint.{suffix}")
    return builder.call(function, [value])


@intrinsic
def nearest(_: Any, value: Any) -> Any:
    """The nearest whole number to a float, ties to even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _whole(builder, arguments[0])

    return types.float32(types.float32), generate


@intrinsic(prefer_literal=True)
def look_up(
    _: Any, packed: Any, apart: Any, table: Any, scales: Any, out: Any,
    numbers: Any, outputs: Any, lanes: Any, rounding: Any,
) -> Any:  # fmt: skip
    """Unpack `numbers` weights of 4 bits of each of `outputs` outputs, whose weights are `apart` bytes from each other,
    the first of two in the upper half of a byte: the floats of those places in the table of 16, times the output's
    scale, rounded; the first ones of all outputs, then the second ones. `packed`, `table`, `scales` and `out` are
    addresses, the last four constants."""
    count, num_outputs, num_lanes = numbers.literal_value, outputs.literal_value, lanes.literal_value
    kind, four, to = ir.VectorType(_FLOAT, num_lanes), ir.VectorType(_INT, 4), rounding.literal_value
    together = 32
    """Numbers of an output that are read at once."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, stride, code, factors, result = arguments[:5]
        parts = [_load(builder, _beyond(builder, code, 4 * n), kind) for n in range(0, 16, num_lanes)]
        for first in range(0, num_outputs, num_lanes):
            scale = _load(builder, _beyond(builder, factors, 4 * first), kind)
            rows = [builder.add(source, builder.mul(stride, ir.Constant(_WORD, first + n))) for n in range(num_lanes)]
            for n in range(0, count, together):
                read = [_load(builder, _beyond(builder, row, n // 2), four) for row in rows]
                words = transposed_within(builder, [joined(builder, read[m::4]) for m in range(4)])
                for k in range(together):
                    shift = 8 * (k % 8 // 2) + (0 if k % 2 else 4)
                    place = builder.lshr(words[k // 8], _like(words[0].type, shift)) if shift else words[k // 8]
                    value = _rounded(builder, builder.fmul(_of_table(builder, parts, place), scale), to)
                    beyond = 4 * ((n + k) * num_outputs + first)
                    builder.store(value, _pointer(builder, _beyond(builder, result, beyond), kind), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, numbers, outputs, lanes, rounding), generate


def _of_table(builder: Any, parts: list[Any], places: Any) -> Any:
    """What stands at places, of which the low 4 bits count."""
    kind, ints = parts[0].type, places.type
    if len(parts) == 1:
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(kind, [kind, ints]), "llvm.x86.avx512.permvar.sf.512"
        )
        return builder.call(function, [parts[0], places])
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind, ints]), "llvm.x86.avx2.permps"
    )
    low, high = (builder.call(function, [part, places]) for part in parts)
    upper = builder.icmp_signed("<", builder.shl(places, _like(ints, 28)), _like(ints, 0))
    return builder.select(upper, high, low)
