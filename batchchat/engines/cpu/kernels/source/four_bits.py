"""Weights of 4 bits, unpacked by looking them up, in the order in which a panel is read."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import BFLOAT16
from batchchat.engines.cpu.kernels.source.transposing import joined, picked_within, transposed_within
from batchchat.engines.cpu.kernels.source.writing import after, like, load, pointer, rounded_to

_FLOAT, _BYTE, _INT, _WORD = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)


TOGETHER = 32
"""Numbers of an output that are read at once."""


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

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, stride, code, factors, result = arguments[:5]
        parts = [load(builder, after(builder, code, 4 * n), kind) for n in range(0, 16, num_lanes)]
        for first in range(0, num_outputs, num_lanes):
            scale = load(builder, after(builder, factors, 4 * first), kind)
            rows = [builder.add(source, builder.mul(stride, ir.Constant(_WORD, first + n))) for n in range(num_lanes)]
            for n in range(0, count, TOGETHER):
                read = [load(builder, after(builder, row, n // 2), four) for row in rows]
                words = transposed_within(builder, [joined(builder, read[m::4]) for m in range(4)])
                for k in range(TOGETHER):
                    shift = 8 * (k % 8 // 2) + (0 if k % 2 else 4)
                    place = builder.lshr(words[k // 8], like(words[0].type, shift)) if shift else words[k // 8]
                    value = rounded_to(builder, builder.fmul(_of_table(builder, parts, place), scale), to)
                    beyond = 4 * ((n + k) * num_outputs + first)
                    builder.store(value, pointer(builder, after(builder, result, beyond), kind), align=4)
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
    upper = builder.icmp_signed("<", builder.shl(places, like(ints, 28)), like(ints, 0))
    return builder.select(upper, high, low)


@intrinsic(prefer_literal=True)
def look_up_rounded(
    _: Any, packed: Any, apart: Any, table: Any, scales: Any, out: Any,
    numbers: Any, outputs: Any, lanes: Any, rounding: Any,
) -> Any:  # fmt: skip
    """The same, rounded to bfloat16: each output's table is scaled and rounded once, and then the two bytes of every
    number are looked up in it."""
    count, num_outputs, num_lanes = numbers.literal_value, outputs.literal_value, lanes.literal_value
    kind, ints, four = ir.VectorType(_FLOAT, num_lanes), ir.VectorType(_INT, num_lanes), ir.VectorType(_INT, 4)
    codes = ir.VectorType(_BYTE, 4 * num_lanes)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, stride, code, factors, result = arguments[:5]
        quarter = [load(builder, after(builder, code, 16 * n), ir.VectorType(_FLOAT, 4)) for n in range(4)]
        quarters = [joined(builder, [part] * (num_lanes // 4)) for part in quarter]
        for first in range(0, num_outputs, num_lanes):
            scale = load(builder, after(builder, factors, 4 * first), kind)
            rows = [builder.add(source, builder.mul(stride, ir.Constant(_WORD, first + n))) for n in range(num_lanes)]
            tables = [_halves(builder, quarters, _spread(builder, scale, m)) for m in range(4)]
            for n in range(0, count, TOGETHER):
                read = [load(builder, after(builder, row, n // 2), four) for row in rows]
                found = [
                    _looked_up(builder, builder.bitcast(joined(builder, read[m::4]), codes), *tables[m])
                    for m in range(4)
                ]
                for begin, pairs in zip((0, 16, 1, 17), zip(*found, strict=True), strict=True):
                    for k, pair in enumerate(transposed_within(builder, list(pairs))):
                        low = builder.shl(pair, like(ints, 16))
                        high = builder.and_(pair, like(ints, -(1 << 16)))
                        for place, value in ((begin + 4 * k, low), (begin + 4 * k + 2, high)):
                            address = after(builder, result, 4 * ((n + place) * num_outputs + first))
                            builder.store(value, pointer(builder, address, ints), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5, numbers, outputs, lanes, rounding), generate


def _spread(builder: Any, scale: Any, m: int) -> Any:
    """Every fourth lane from lane `m` on, four times each."""
    lanes = scale.type.count
    places = [block + m for block in range(0, lanes, 4) for _ in range(4)]
    return builder.shuffle_vector(scale, scale, ir.Constant(ir.VectorType(_INT, lanes), places))


def _halves(builder: Any, quarters: list[Any], scale: Any) -> tuple[Any, Any]:
    """Tables times scales as bfloat16: of each 16 bytes the lower ones of a table's 16 numbers, and the upper ones."""
    codes, ints = ir.VectorType(_BYTE, 4 * scale.type.count), ir.VectorType(_INT, scale.type.count)
    sorted_bytes = [2, 6, 10, 14, 3, 7, 11, 15, *range(8, 16)]
    parts = []
    for quarter in quarters:
        exact = builder.bitcast(rounded_to(builder, builder.fmul(quarter, scale), BFLOAT16), codes)
        parts.append(builder.bitcast(picked_within(builder, exact, exact, sorted_bytes), ints))
    a, b, c, d = parts
    one, other = picked_within(builder, a, b, [0, 4, 1, 5]), picked_within(builder, c, d, [0, 4, 1, 5])
    low, high = (
        builder.bitcast(picked_within(builder, one, other, places), codes) for places in ([0, 1, 4, 5], [2, 3, 6, 7])
    )
    return low, high


def _looked_up(builder: Any, packed: Any, low: Any, high: Any) -> list[Any]:
    """Numbers of 16 bits in pairs: every second one of the first 16, of the next 16, and the others likewise."""
    ints, words = (ir.VectorType(_INT, packed.type.count // 4), ir.VectorType(ir.IntType(16), packed.type.count // 2))
    kind = packed.type
    name = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b"}[kind.count]
    look = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 2), name)
    shifted = builder.bitcast(builder.lshr(builder.bitcast(packed, words), like(words, 4)), kind)
    found = []
    for half in (shifted, packed):
        places = builder.and_(half, like(kind, 15))
        lower, upper = (builder.call(look, [table, places]) for table in (low, high))
        for begin in (0, 8):
            both = [place for n in range(begin, begin + 8) for place in (n, n + 16)]
            found.append(builder.bitcast(picked_within(builder, lower, upper, both), ints))
    return found
