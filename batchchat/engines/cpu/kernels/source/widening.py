"""Products in single precision with weights that stay narrow in memory, as what one thread does of them.

A step of few rows takes as long as reading the weights does: half the bytes are half the time. So a weight of 16 bits
is read as it is and widened in registers, on processors that cannot multiply such numbers or do it slowly. It lies in
memory in the order in which it is read: panel after panel (see `panels`). A row's bits do not depend on the width of
the weights in memory either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import carray

from batchchat.engines.cpu.kernels.abi import FLOAT32, WEIGHTED
from batchchat.engines.cpu.kernels.layouts import CHUNK
from batchchat.engines.cpu.kernels.processor import VECTORS
from batchchat.engines.cpu.kernels.source.code import Code, allocate, at, narrow, release, take, wide
from batchchat.engines.cpu.kernels.source.panels import HELD, lay_out, multiply, rows_near

_AHEAD = 1 << 12
"""How many bytes ahead of its use a weight is fetched by a panel's only block of rows. Of several blocks, each fetches
its part of the next panel: reading goes on while they multiply what is near already."""


def product(stored: type, width: int, held: torch.dtype, lanes: int, most: int) -> Code:
    """Rows `[rows, size]` of `width` bytes a number times a packed weight, plus a bias `[outputs]` if its address is
    not 0. The weight's numbers are `held`, the bias's are `stored` as those of the rows are."""
    layout, kind = WEIGHTED, HELD.index(held)
    panel, bytes_held = VECTORS * lanes, held.itemsize
    lines = 2 * panel * bytes_held // 64

    def run(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, size, outputs, bias = given.rows, given.size, given.outputs, given.bias
        chunks, panels = (size + CHUNK - 1) // CHUNK, (outputs + panel - 1) // panel
        near = rows_near(rows, chunks, most)
        groups, laid_out = (rows + near - 1) // near, -1
        laid, kept = allocate(near * chunks * CHUNK * 4), allocate(most * panel * 4)
        numbers = carray(at(laid), (near * chunks * CHUNK,), np.float32)
        sums = carray(at(kept), (most * panel,), np.float32)
        turn, piece = take(parameters, 0, groups * panels)
        while piece >= 0:
            group, one = piece // panels, piece % panels
            first = group * near
            have = min(near, rows - first)
            blocks = (have + most - 1) // most
            each = (have + blocks - 1) // blocks
            if group != laid_out:
                source = given.source + first * size * width
                lay_out(numbers, source, size * width, have, each, size, chunks, stored, FLOAT32)
                laid_out = group
            weight = given.weight + one * panel * chunks * CHUNK * bytes_held
            ahead, stride = weight + _AHEAD, 2 * panel * bytes_held
            if blocks > 1:
                ahead, stride = weight + panel * chunks * CHUNK * bytes_held, stride // blocks
            valid = min(panel, outputs - one * panel)
            for block in range(blocks):
                count = min(each, have - block * each)
                lies = laid + 4 * block * each * chunks * CHUNK
                sums[: count * panel] = np.float32(0.0)
                multiply(lies, weight, kept, chunks, ahead, stride, count, kind, lanes, most, lines)
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
            turn, piece = take(parameters, turn, groups * panels)
        release(laid)
        release(kept)

    return run
