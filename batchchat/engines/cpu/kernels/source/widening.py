"""Products in single precision with weights that stay narrow in memory, as what one thread does of them.

A step of few rows takes as long as reading the weights does: half the bytes are half the time. So a weight of 16 bits
is read as it is and widened in registers, on processors that cannot multiply such numbers or do it slowly. It lies in
memory in the order in which it is read: as many outputs as fill two vectors (a panel) side by side, number after
number. Each output of a row is summed up number after number with one rounding each, in the same order on all
processors, for any number of rows and whatever the width of the weights in memory: its bits depend on its own row
alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import WIDENED
from batchchat.engines.cpu.kernels.layouts import CHUNK
from batchchat.engines.cpu.kernels.processor import VECTORS
from batchchat.engines.cpu.kernels.source.code import Code, allocate, at, narrow, release, thread, threads, wide

_NEAR = 1 << 19
"""Bytes of rows that are multiplied with a panel before the next one is read: they stay in a near cache."""
_AHEAD = 1 << 12
"""How many bytes ahead of its use a weight is fetched by a panel's only block of rows. Of several blocks, each fetches
its part of the next panel: reading goes on while they multiply what is near already."""


_HELD = (torch.float32, torch.bfloat16, torch.float16)
"""What weights are held as. Compiled code is told the place in this list: it is kept by its constants."""

_WORD, _BYTE, _NUMBER, _FLAG = ir.IntType(64), ir.IntType(8), ir.FloatType(), ir.IntType(32)


class _Writer:
    """Writes code for products of a few rows with a panel of outputs."""

    def __init__(self, builder: Any, held: torch.dtype, lanes: int):
        self._builder = builder
        self._held = held
        self._lanes = lanes
        self._step = VECTORS * lanes * held.itemsize
        """Bytes from one number of the outputs to the next."""
        self._vector = ir.VectorType(_NUMBER, lanes)
        self._words = ir.VectorType(_FLAG, lanes)
        self._halves = ir.VectorType(ir.HalfType(), lanes)

    def multiply(self, rows: int, source: Any, weight: Any, sums: Any, chunks: Any, ahead: Any, stride: Any) -> None:
        """Write the sums of `rows` rows, which stay in registers."""
        builder, steps = self._builder, CHUNK // 2
        kind = ir.FunctionType(self._vector, [self._vector] * 3)
        add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{self._lanes}f32")
        totals = [cgutils.alloca_once(builder, self._vector) for _ in range(rows * VECTORS)]
        for total in totals:
            builder.store(ir.Constant(self._vector, [0.0] * self._lanes), total)
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
                        value = self._spread(self._load(numbers, 4 * (CHUNK * row + step), _NUMBER))
                        for total, one in zip(totals[row * VECTORS :], vectors, strict=False):
                            builder.store(builder.call(add, [value, one, builder.load(total)]), total)
        out = builder.inttoptr(sums, self._vector.as_pointer())
        for n, total in enumerate(totals):
            builder.store(builder.load(total), builder.gep(out, [ir.Constant(_WORD, n)]), align=4)

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
        builder = self._builder
        kind = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), *[_FLAG] * 3])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        to_read, near, data = (ir.Constant(_FLAG, number) for number in (0, 3, 1))
        for line in range(0, 2 * self._step, 64):
            place = builder.inttoptr(builder.add(address, ir.Constant(_WORD, line)), _BYTE.as_pointer())
            builder.call(function, [place, to_read, near, data])

    def _beyond(self, address: Any, count: Any, size: int) -> Any:
        return self._builder.add(address, self._builder.mul(count, ir.Constant(_WORD, size)))

    def _load(self, address: Any, beyond: int, kind: Any) -> Any:
        place = self._builder.add(address, ir.Constant(_WORD, beyond))
        return self._builder.load(self._builder.inttoptr(place, kind.as_pointer()), align=2)

    def _spread(self, value: Any) -> Any:
        first = ir.Constant(_FLAG, 0)
        one = self._builder.insert_element(ir.Constant(self._vector, ir.Undefined), value, first)
        return self._builder.shuffle_vector(one, one, ir.Constant(self._words, [0] * self._lanes))


@intrinsic(prefer_literal=True)
def multiply(
    _: Any, source: Any, weight: Any, sums: Any, chunks: Any, ahead: Any, stride: Any,
    rows: Any, held: Any, lanes: Any, most: Any,
) -> Any:  # fmt: skip
    """Products of up to `most` rows with a panel: addresses of the rows as they lie in chunks, of the panel, and of
    floats `[rows, panel]` for the sums. With each two numbers it fetches what is `ahead`, the next time `stride` bytes
    further on. What is `held`, `lanes` and `most` are constants."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        writer = _Writer(builder, _HELD[held.literal_value], lanes.literal_value)
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

    return types.void(*[types.int64] * 7, held, lanes, most), generate


def product(stored: type, width: int, held: torch.dtype, lanes: int, most: int) -> Code:
    """Rows `[rows, size]` of `width` bytes a number times a packed weight, plus a bias `[outputs]` if its address is
    not 0. The weight's numbers are `held`, the bias's are `stored` as those of the rows are."""
    layout, kind = WIDENED, _HELD.index(held)
    panel, bytes_held = VECTORS * lanes, held.itemsize

    def run(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, size, outputs, bias = given.rows, given.size, given.outputs, given.bias
        chunks, panels = (size + CHUNK - 1) // CHUNK, (outputs + panel - 1) // panel
        share = (panels + threads() - 1) // threads()
        begin, end = thread() * share, min(panels, (thread() + 1) * share)
        near = min(rows, max(most, _NEAR // (4 * CHUNK * chunks) // most * most))
        laid, kept = allocate(near * chunks * CHUNK * 4), allocate(most * panel * 4)
        numbers = carray(at(laid), (near * chunks * CHUNK,), np.float32)
        sums = carray(at(kept), (most * panel,), np.float32)
        for first in range(0, rows if begin < end else 0, near):
            have = min(near, rows - first)
            blocks = (have + most - 1) // most
            each = (have + blocks - 1) // blocks
            for row in range(have):
                block = row // each
                count = min(each, have - block * each)
                place = (block * each * chunks + (row - block * each)) * CHUNK
                source = carray(at(given.source + (first + row) * size * width), (size,), stored)
                for chunk in range(chunks):
                    lies = place + chunk * count * CHUNK
                    if (chunk + 1) * CHUNK <= size:
                        for n in range(CHUNK):
                            numbers[lies + n] = wide(source[chunk * CHUNK + n])
                    else:
                        for n in range(CHUNK):
                            inside = chunk * CHUNK + n < size
                            numbers[lies + n] = wide(source[chunk * CHUNK + n]) if inside else np.float32(0.0)
            for one in range(begin, end):
                weight = given.weight + one * panel * chunks * CHUNK * bytes_held
                ahead, stride = weight + _AHEAD, 2 * panel * bytes_held
                if blocks > 1:
                    ahead, stride = weight + panel * chunks * CHUNK * bytes_held, stride // blocks
                valid = min(panel, outputs - one * panel)
                for block in range(blocks):
                    count = min(each, have - block * each)
                    lies = laid + 4 * block * each * chunks * CHUNK
                    multiply(lies, weight, kept, chunks, ahead, stride, count, kind, lanes, most)
                    if blocks > 1:
                        ahead += chunks * (CHUNK // 2) * stride
                    for row in range(count):
                        place = (first + block * each + row) * outputs + one * panel
                        out = carray(at(given.target + place * width), (valid,), stored)
                        if bias != 0:
                            more = carray(at(bias + one * panel * width), (valid,), stored)
                            for n in range(valid):
                                out[n] = narrow(sums[row * panel + n] + wide(more[n]), out[n])
                        else:
                            for n in range(valid):
                                out[n] = narrow(sums[row * panel + n], out[n])
        release(laid)
        release(kept)

    return run
