"""Products of rows in bfloat16 with weights of 4 bits on matrix units, as what one thread does of it: the weights of a
few outputs are unpacked to tiles in a near cache, which all rows are then multiplied with."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, float32, types
from numba.core import cgutils
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import BFLOAT16, PART, QUANTIZED_PRODUCT
from batchchat.engines.cpu.kernels.layouts import DEPTH, ROWS
from batchchat.engines.cpu.kernels.source.code import Code, allocate, at, float_of, release, take
from batchchat.engines.cpu.kernels.source.quantized import (
    block_scales,
    finish_outputs,
    number_of_panels,
    outputs_of,
)
from batchchat.engines.cpu.kernels.source.tiles import MOST, OUTPUTS, TILE, begin_tiles, end_tiles, rows_at_once, sum_up
from batchchat.engines.cpu.kernels.source.transposing import joined, transposed_within
from batchchat.engines.cpu.kernels.source.vectors import fetch
from batchchat.engines.cpu.kernels.source.writing import after, like, load, pointer

_INT, _WORD = ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(ir.FloatType(), ROWS), ir.VectorType(_INT, ROWS)
_HALVES = ir.VectorType(ir.IntType(16), 2 * ROWS)


@intrinsic
def _unpack_tile(_: Any, packed: Any, apart: Any, table: Any, scales: Any, out: Any) -> Any:
    """Write a tile of 32 weights of each of 16 outputs to `out`: pairs of all outputs, row after row. The outputs'
    bytes, each with a pair whose first number is in the upper half, are `apart` from each other. A weight is the number
    at its place in the table of 16, times its output's scale, rounded to bfloat16. All are addresses but `apart`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, stride, codes, factors, result = arguments
        code, scale = load(builder, codes, _FLOATS), load(builder, factors, _FLOATS)
        rows = [builder.add(source, builder.mul(stride, ir.Constant(_WORD, n))) for n in range(ROWS)]
        read = [load(builder, row, ir.VectorType(_INT, 4)) for row in rows]
        words = transposed_within(builder, [joined(builder, read[m::4]) for m in range(4)])
        for row in range(ROWS):
            pair = []
            for upper in (4, 0):
                shift = 8 * (row % 4) + upper
                places = builder.lshr(words[row // 4], like(_INTS, shift)) if shift else words[row // 4]
                pair.append(builder.fmul(_at_places(builder, code, places), scale))
            place = pointer(builder, after(builder, result, 64 * row), _HALVES)
            builder.store(_paired(builder, *pair), place, align=64)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), generate


def _at_places(builder: Any, table: Any, places: Any) -> Any:
    """What stands at places in a table of 16, of which the low 4 bits count."""
    kind = ir.FunctionType(_FLOATS, [_FLOATS, _INTS])
    return builder.call(
        cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.sf.512"), [table, places]
    )


def _paired(builder: Any, first: Any, second: Any) -> Any:
    """Two vectors of floats as pairs in bfloat16, the nearest ones, ties to even."""
    kind = ir.FunctionType(_HALVES, [_FLOATS, _FLOATS])
    both = builder.asm(kind, "vcvtne2ps2bf16 $2, $1, $0", "=v,v,v", [second, first], False)
    places = [place for n in range(ROWS) for place in (n, ROWS + n)]
    return builder.shuffle_vector(both, both, ir.Constant(ir.VectorType(_INT, 2 * ROWS), places))


def product(run: int) -> Code:
    """Rows times the parts of a joined weight in 4 bits, of which `run` numbers of an output have one scale. The rows
    lie in memory that goes on to a multiple of 16 of them."""
    layout, part_layout = QUANTIZED_PRODUCT, PART

    def multiply(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, size, stride = given.rows, given.size, given.stride * 2
        chunks, bytes_each = size // DEPTH, size // 2
        parts = carray(at(given.parts), (given.num_parts,), part_layout)
        panels = number_of_panels(parts, OUTPUTS)
        unpacked, kept = allocate(chunks * 2 * TILE), allocate(MOST * ROWS * OUTPUTS * 4)
        filled, scaled, begin = allocate(OUTPUTS * bytes_each), allocate(OUTPUTS * 4), allocate(OUTPUTS * 4)
        carray(at(begin), (OUTPUTS,), np.float32)[:] = float32(0.0)
        factors = carray(at(scaled), (OUTPUTS,), np.float32)
        factors[:] = float32(0.0)
        begin_tiles()
        turn, piece = take(parameters, 0, panels)
        while piece >= 0:
            n, first, have, packed = outputs_of(parts, piece, OUTPUTS, bytes_each, filled)
            part = parts[n]
            offset = float_of(part.offset)
            for k in range(0, size, run):
                for line in range(0, OUTPUTS * run // 2, 64):
                    fetch(packed + (OUTPUTS * size + k * OUTPUTS) // 2 + line)
                block_scales(
                    factors[:have], part.scales, part.nested, part.code, offset, first * size + k, size, part.shift
                )
                for d in range(k, k + run, DEPTH):
                    for half in range(2):
                        _unpack_tile(
                            packed + half * ROWS * bytes_each + d // 2,
                            bytes_each,
                            part.table,
                            scaled + half * ROWS * 4,
                            unpacked + (half * chunks + d // DEPTH) * TILE,
                        )
            row = 0
            while row < rows:
                many = rows_at_once(rows - row)
                sum_up(begin, unpacked, chunks, given.numbers + row * stride, stride, many, kept)
                for i in range(many):
                    place = given.target + ((row + i) * given.target_stride + part.beyond + first) * 2
                    finish_outputs(
                        kept + i * OUTPUTS * 4, float32(1.0), part, first, have, place, OUTPUTS,
                        False, False, BFLOAT16, 2, True,
                    )  # fmt: skip
                row += many
            turn, piece = take(parameters, turn, panels)
        end_tiles()
        release(unpacked)
        release(kept)
        release(filled)
        release(scaled)
        release(begin)

    return multiply
