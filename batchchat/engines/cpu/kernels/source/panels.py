"""Products of rows with a panel of weights: as many outputs as fill two vectors, side by side, number after number.

Each output of a row is summed up number after number with one rounding each, in the same order on all processors, for
any number of rows: its bits depend on its own row alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.layouts import CHUNK
from batchchat.engines.cpu.kernels.processor import VECTORS
from batchchat.engines.cpu.kernels.source.blocks import rounded
from batchchat.engines.cpu.kernels.source.code import OPTIONS, at, wide
from batchchat.engines.cpu.kernels.source.writing import after, pointer, prefetch, splat

NEAR = 1 << 19
"""Bytes of rows that are multiplied with a panel before the next one is read: they stay in a near cache."""

HELD = (torch.float32, torch.bfloat16, torch.float16)
"""What weights are held as. Compiled code is told the place in this list: it is kept by its constants."""

_WORD, _NUMBER, _FLAG = ir.IntType(64), ir.FloatType(), ir.IntType(32)


class _Writer:
    """Writes code for products of a few rows with a panel of outputs."""

    def __init__(self, builder: Any, held: torch.dtype, lanes: int, lines: int):
        self._builder = builder
        self._lines = lines
        self._held = held
        self._lanes = lanes
        self._step = VECTORS * lanes * held.itemsize
        """Bytes from one number of the outputs to the next."""
        self._vector = ir.VectorType(_NUMBER, lanes)
        self._words = ir.VectorType(_FLAG, lanes)
        self._halves = ir.VectorType(ir.HalfType(), lanes)

    def multiply(self, rows: int, source: Any, weight: Any, sums: Any, chunks: Any, ahead: Any, stride: Any) -> None:
        """Add to the sums of `rows` rows, which stay in registers meanwhile."""
        builder, steps = self._builder, CHUNK // 2
        kind = ir.FunctionType(self._vector, [self._vector] * 3)
        once = "fma" if self._lanes > 4 else "fmuladd"  # not every processor rounds once
        add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{once}.v{self._lanes}f32")
        totals = [cgutils.alloca_once(builder, self._vector) for _ in range(rows * VECTORS)]
        out = builder.inttoptr(sums, self._vector.as_pointer())
        places = [builder.gep(out, [ir.Constant(_WORD, n)]) for n in range(len(totals))]
        for place, total in zip(places, totals, strict=True):
            builder.store(builder.load(place, align=4), total)
        with cgutils.for_range(builder, chunks) as chunk:
            block = self._beyond(source, chunk.index, 4 * CHUNK * rows)
            part = self._beyond(weight, chunk.index, CHUNK * self._step)
            first = builder.mul(chunk.index, ir.Constant(_WORD, steps))
            with cgutils.for_range(builder, ir.Constant(_WORD, steps)) as pair:
                numbers = self._beyond(block, pair.index, 8)
                place = self._beyond(part, pair.index, 2 * self._step)
                self._fetch(builder.add(ahead, builder.mul(builder.add(first, pair.index), stride)))
                for step, vectors in enumerate(self._weights(place)):
                    for row in range(rows):
                        value = splat(builder, self._load(numbers, 4 * (CHUNK * row + step), _NUMBER), self._lanes)
                        for total, one in zip(totals[row * VECTORS :], vectors, strict=False):
                            builder.store(builder.call(add, [value, one, builder.load(total)]), total)
        for place, total in zip(places, totals, strict=True):
            builder.store(builder.load(total), place, align=4)

    def _weights(self, address: Any) -> list[list[Any]]:
        """Vectors of the outputs' next two numbers, a list of each."""
        builder, lanes = self._builder, self._lanes
        if self._held == torch.bfloat16:
            found = [self._load(address, 4 * lanes * place, self._words) for place in range(VECTORS)]
            sixteen, upper = (ir.Constant(self._words, [bits] * lanes) for bits in (16, 0xFFFF0000))
            return [
                [builder.bitcast(builder.shl(pair, sixteen), self._vector) for pair in found],
                [builder.bitcast(builder.and_(pair, upper), self._vector) for pair in found],
            ]
        wide = self._held == torch.float32
        kind, width = (self._vector, 4) if wide else (self._halves, 2)
        found = [self._load(address, width * lanes * place, kind) for place in range(2 * VECTORS)]
        if not wide:
            found = [builder.fpext(one, self._vector) for one in found]
        return [found[:VECTORS], found[VECTORS:]]

    def _fetch(self, address: Any) -> None:
        """Have weights brought nearer that are read later."""
        for line in range(0, 64 * self._lines, 64):
            prefetch(self._builder, after(self._builder, address, line))

    def _beyond(self, address: Any, count: Any, size: int) -> Any:
        return self._builder.add(address, self._builder.mul(count, ir.Constant(_WORD, size)))

    def _load(self, address: Any, beyond: int, kind: Any) -> Any:
        place = pointer(self._builder, after(self._builder, address, beyond), kind)
        return self._builder.load(place, align=2)


@intrinsic(prefer_literal=True)
def multiply(
    _: Any, source: Any, weight: Any, sums: Any, chunks: Any, ahead: Any, stride: Any,
    rows: Any, held: Any, lanes: Any, most: Any, lines: Any,
) -> Any:  # fmt: skip
    """Products of up to `most` rows with a panel: addresses of the rows as they lie in chunks, of the panel, and of
    floats `[rows, panel]` that they are added to. With each two numbers it fetches `lines` of what is `ahead`, the next
    time `stride` bytes further on. What is `held` (its place in `HELD`), `lanes`, `most` and `lines` are constants."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        writer = _Writer(builder, HELD[held.literal_value], lanes.literal_value, lines.literal_value)
        end = builder.append_basic_block("multiplied")
        choice = builder.switch(arguments[6], end)
        for count in range(1, most.literal_value + 1):
            case = builder.append_basic_block(f"rows_{count}")
            choice.add_case(ir.Constant(_WORD, count), case)
            builder.position_at_end(case)
            writer.multiply(count, *arguments[:6])
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7, held, lanes, most, lines), generate


@njit(inline="always", **OPTIONS)
def lay_out(
    numbers: Any, source: Any, apart: Any, have: Any, each: Any, size: Any, chunks: Any, stored: Any, rounding: Any
) -> None:
    """`have` rows at an address, `apart` bytes from each other, as `multiply` reads them: `each` rows after the other,
    and of these chunk after chunk; rounded."""
    for row in range(have):
        block = row // each
        count = min(each, have - block * each)
        place = (block * each * chunks + (row - block * each)) * CHUNK
        given = carray(at(source + row * apart), (size,), stored)
        for chunk in range(chunks):
            lies = place + chunk * count * CHUNK
            if (chunk + 1) * CHUNK <= size:
                for n in range(CHUNK):
                    numbers[lies + n] = rounded(wide(given[chunk * CHUNK + n]), rounding)
            else:
                for n in range(CHUNK):
                    inside = chunk * CHUNK + n < size
                    number = rounded(wide(given[chunk * CHUNK + n]), rounding) if inside else np.float32(0.0)
                    numbers[lies + n] = number


@njit(inline="always", **OPTIONS)
def rows_near(rows: Any, chunks: Any, most: Any) -> Any:
    """How many of `rows` rows are laid out at once: about as many each time, a multiple of `most` but for few."""
    times = max(1, (rows * 4 * CHUNK * chunks + NEAR - 1) // NEAR)
    return max(1, min(rows, ((rows + times - 1) // times + most - 1) // most * most))
