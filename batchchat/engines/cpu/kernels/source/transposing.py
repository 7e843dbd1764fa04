"""Floats that lie row by row, written column by column."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.source.writing import after, pointer

_FLOAT, _INT, _WORD = ir.FloatType(), ir.IntType(32), ir.IntType(64)


@intrinsic(prefer_literal=True)
def transpose(_: Any, source: Any, apart: Any, target: Any, size: Any, outputs: Any, lanes: Any) -> Any:
    """Write floats of `outputs` rows, which are `apart` bytes from each other at `source`, to `target`: the first
    number of all, then the second one. `size`: how many of each; a multiple of `lanes`, as `outputs` is. The last three
    are constants."""
    count, num_outputs, width = size.literal_value, outputs.literal_value, lanes.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start, stride, result = arguments[:3]
        kind = ir.VectorType(_FLOAT, width)
        for output in range(0, num_outputs, width):
            rows = [builder.add(start, builder.mul(stride, ir.Constant(_WORD, output + n))) for n in range(width)]
            for first in range(0, count, width):
                vectors = [
                    builder.load(pointer(builder, after(builder, row, 4 * first), kind), align=4) for row in rows
                ]
                for n, vector in enumerate(_transposed(builder, vectors)):
                    beyond = 4 * ((first + n) * num_outputs + output)
                    builder.store(vector, pointer(builder, after(builder, result, beyond), kind), align=4)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3, size, outputs, lanes), generate


def joined(builder: Any, vectors: list[Any]) -> Any:
    """One or two or four vectors as one."""
    while len(vectors) > 1:
        lanes = 2 * vectors[0].type.count
        places = ir.Constant(ir.VectorType(_INT, lanes), list(range(lanes)))
        vectors = [builder.shuffle_vector(a, b, places) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


def _pick(builder: Any, a: Any, b: Any, places: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INT, len(places)), places))


def picked_within(builder: Any, a: Any, b: Any, pattern: list[int]) -> Any:
    """The same lanes of each block of as many as the pattern has; from that number on those of the second vector."""
    lanes, size = a.type.count, len(pattern)
    places = [
        block + place % size + (lanes if place >= size else 0) for block in range(0, lanes, size) for place in pattern
    ]
    return _pick(builder, a, b, places)


def transposed_within(builder: Any, four: list[Any]) -> list[Any]:
    """Four vectors, of each block of four lanes columns for rows."""
    a, b, c, d = four
    pairs = [
        (picked_within(builder, a, b, pattern), picked_within(builder, c, d, pattern))
        for pattern in ([0, 4, 1, 5], [2, 6, 3, 7])
    ]
    return [picked_within(builder, *pair, pattern) for pair in pairs for pattern in ([0, 1, 4, 5], [2, 3, 6, 7])]


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """As many vectors as they have lanes, columns for rows: in blocks of four lanes, then block by block."""
    groups = [transposed_within(builder, list(four)) for four in zip(*[iter(rows)] * 4, strict=True)]
    blocks = len(groups)
    columns: list[Any] = [None] * len(rows)
    for column in range(4):
        for block, vector in enumerate(_blocks_transposed(builder, [group[column] for group in groups], blocks)):
            columns[4 * block + column] = vector
    return columns


def _blocks_transposed(builder: Any, vectors: list[Any], blocks: int) -> list[Any]:
    """The same of blocks of four lanes, of which each of the 1, 2 or 4 vectors has as many."""
    if blocks == 1:
        return vectors

    def halves(a: Any, b: Any) -> list[Any]:
        """The blocks at even places of two vectors, and those at odd ones."""
        every = [list(range(4 * block, 4 * block + 4)) for block in range(2 * blocks)]
        return [_pick(builder, a, b, [lane for block in every[first::2] for lane in block]) for first in (0, 1)]

    even_odd = [halves(a, b) for a, b in zip(vectors[::2], vectors[1::2], strict=True)]
    if blocks == 2:
        return even_odd[0]
    (even, odd), (even_2, odd_2) = even_odd
    (first, third), (second, fourth) = halves(even, even_2), halves(odd, odd_2)
    return [first, second, third, fourth]
