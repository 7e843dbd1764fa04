"""Products of a few rows with a few outputs in registers, and 4-bit weights unpacked by looking them up, for each set
of vector instructions: in floats, or exactly in bytes where the processor multiplies those.

All numbers of a sum are taken in one order, whatever else is computed with it: a row's bits do not depend on others.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import BFLOAT16, FLOAT32

_FLOAT, _BYTE, _INT, _WORD = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_FUSED = ("contract",)
"""Sums keep their order."""

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


def _sums(builder: Any, vectors: list[Any], lanes: int) -> Any:
    """Of as many vectors as they have lanes the sum of each, as one vector."""
    floats = vectors[0].type.element == _FLOAT
    run = 1
    while len(vectors) > 1:
        ones, others = [], []
        for first in range(0, lanes, 2 * run):
            own = list(range(first, first + run))
            ones += own + [lane + lanes for lane in own]
            others += [lane + run for lane in own] + [lane + run + lanes for lane in own]
        kind = ir.VectorType(_INT, lanes)
        pairs = [
            [builder.shuffle_vector(a, b, ir.Constant(kind, places)) for places in (ones, others)]
            for a, b in zip(vectors[::2], vectors[1::2], strict=True)
        ]
        vectors = [builder.fadd(*pair) if floats else builder.add(*pair) for pair in pairs]
        run *= 2
    return vectors[0]


def _dot(builder: Any, total: Any, row: Any, weight: Any) -> Any:
    """Add up products of a vector of rows' numbers and one of weights' in the lanes of `total`."""
    if total.type.element == _FLOAT:
        return builder.fadd(builder.fmul(row, weight, flags=_FUSED), total, flags=_FUSED)
    kind = total.type
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * 3), f"llvm.x86.avx512.vpdpbusd.{32 * kind.count}"
    )
    return builder.call(function, [total, row, weight])


@intrinsic(prefer_literal=True)
def multiply(
    _: Any, source: Any, stride: Any, weight: Any, weight_stride: Any, steps: Any, out: Any,
    rows: Any, outputs: Any, lanes: Any, in_bytes: Any,
) -> Any:  # fmt: skip
    """Products of `rows` rows at `source` with `outputs` rows of weights, `steps` vectors long, to `out` as floats, or
    whole numbers of 32 bits: rows after rows, with room for a multiple of `lanes`. `source`, `weight` and `out` are
    addresses, strides are bytes, and the last four constants. `in_bytes`: rows are bytes without a sign, weights bytes
    with one, four to each lane."""
    num_rows, num_outputs, num_lanes = rows.literal_value, outputs.literal_value, lanes.literal_value
    number = _INT if in_bytes.literal_value else _FLOAT

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, row_bytes, first, weight_bytes, count, result = arguments[:6]
        kind = ir.VectorType(number, num_lanes)
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
                    builder.store(_dot(builder, builder.load(total), row, other), total)
        found = [builder.load(total) for total in totals]
        found += [nothing] * (-len(found) % num_lanes)
        for n in range(0, len(found), num_lanes):
            place = _pointer(builder, _beyond(builder, result, 4 * n), kind)
            builder.store(_sums(builder, found[n : n + num_lanes], num_lanes), place, align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6, rows, outputs, lanes, in_bytes), generate


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
        odd = builder.and_(builder.lshr(bits, _like(ints, 16)), _like(ints, 1))
        up = builder.add(builder.add(bits, _like(ints, 0x7FFF)), odd)
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
    _: Any, packed: Any, table: Any, scale: Any, out: Any, numbers: Any, lanes: Any, rounding: Any
) -> Any:  # fmt: skip
    """Unpack `numbers` weights of 4 bits, the first of two in the upper half of a byte: the float of that place in the
    table of 16, times `scale`, rounded. Of each `2 * lanes` come those at even places first. `packed`, `table` and
    `out` are addresses, the last three constants."""
    count, num_lanes, to = numbers.literal_value, lanes.literal_value, rounding.literal_value
    kind, places = ir.VectorType(_FLOAT, num_lanes), ir.VectorType(_INT, num_lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, code, factor, result = arguments[:4]
        factors = _splat(builder, factor, num_lanes)
        parts = [
            _rounded(builder, builder.fmul(_load(builder, _beyond(builder, code, 4 * n), kind), factors), to)
            for n in range(0, 16, num_lanes)
        ]
        for n in range(0, count, 2 * num_lanes):
            pairs = _load(builder, _beyond(builder, source, n // 2), ir.VectorType(_BYTE, num_lanes))
            odd = builder.zext(pairs, places)
            even = builder.lshr(odd, _like(places, 4))
            for number, place in ((n, even), (n + num_lanes, odd)):
                target = _pointer(builder, _beyond(builder, result, 4 * number), kind)
                builder.store(_of_table(builder, parts, place), target, align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.float32, types.int64, numbers, lanes, rounding), generate


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
