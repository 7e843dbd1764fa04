"""Products of rows in 8 bits with weights of 8 bits on matrix units, as what one thread does of it. Weights are read
where bitsandbytes keeps them; it is the rows whose numbers lie four by four, those of 16 rows side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, njit

from batchchat.engines.cpu.kernels.abi import PART, QUANTIZED_PRODUCT
from batchchat.engines.cpu.kernels.layouts import ROWS, TILE_BYTES
from batchchat.engines.cpu.kernels.source.code import Code, allocate, at, release, take
from batchchat.engines.cpu.kernels.source.quantized import (
    add_outliers,
    finish_outputs,
    number_of_panels,
    outputs_of,
)
from batchchat.engines.cpu.kernels.source.tiles import (
    MOST,
    OUTPUTS,
    TILE,
    assembly,
    begin_tiles,
    end_tiles,
    rows_at_once,
)
from batchchat.engines.cpu.kernels.source.transposing import transpose
from batchchat.engines.cpu.kernels.source.vectors import fetch


def _clear(count: int) -> Callable[..., None]:
    return assembly(*(f"tilezero %tmm{tile}" for tile in range(2 * count)))


def _multiply(count: int) -> Callable[..., None]:
    """Add to 2 * `count` tiles of sums the products of two tiles of weights at $0 and $6, whose outputs are $1 bytes
    apart, with `count` tiles of rows at $3 to $5. $2 is 64."""
    lines = []
    for half, weights in enumerate(("$0", "$6")):
        lines.append(f"tileloadd ({weights},$1,1), %tmm6")
        for tile in range(count):
            lines.append(f"tileloadd (${3 + tile},$2,1), %tmm7")
            lines.append(f"tdpbsud %tmm7, %tmm6, %tmm{2 * tile + half}")
    return assembly(*lines)


def _keep(count: int) -> Callable[..., None]:
    """Write the tiles of sums to $0, one behind the other. $1 is 64."""
    return assembly(*(f"tilestored %tmm{tile}, {TILE * tile}($0,$1,1)" for tile in range(2 * count)))


_clear_1, _clear_2, _clear_3 = _clear(1), _clear(2), _clear(3)
_multiply_1, _multiply_2, _multiply_3 = _multiply(1), _multiply(2), _multiply(3)
_keep_1, _keep_2, _keep_3 = _keep(1), _keep(2), _keep(3)


@njit(inline="always")
def _sum_up(weight: Any, size: Any, one: Any, have: Any, kept: Any) -> None:
    """Write to `kept` the sums of 32 outputs, whose weights are at `weight`, of up to `MOST` tiles of rows at `one`:
    16 outputs by 16 rows after the other. The next outputs' weights are fetched meanwhile."""
    apart, other, ahead = ROWS * size, weight + ROWS * size, weight + OUTPUTS * size
    if have <= ROWS:
        _clear_1(0, 0, 0, 0, 0, 0, 0)
    elif have <= 2 * ROWS:
        _clear_2(0, 0, 0, 0, 0, 0, 0)
    else:
        _clear_3(0, 0, 0, 0, 0, 0, 0)
    for k in range(0, size, TILE_BYTES):
        for line in range(0, OUTPUTS * TILE_BYTES, 64):
            fetch(ahead + OUTPUTS * k + line)
        tile = one + k * ROWS
        if have <= ROWS:
            _multiply_1(weight + k, size, 64, tile, 0, 0, other + k)
        elif have <= 2 * ROWS:
            _multiply_2(weight + k, size, 64, tile, tile + apart, 0, other + k)
        else:
            _multiply_3(weight + k, size, 64, tile, tile + apart, tile + 2 * apart, other + k)
    if have <= ROWS:
        _keep_1(kept, 64, 0, 0, 0, 0, 0)
    elif have <= 2 * ROWS:
        _keep_2(kept, 64, 0, 0, 0, 0, 0)
    else:
        _keep_3(kept, 64, 0, 0, 0, 0, 0)


def product(stored: type, width: int, rounding: int) -> Code:
    """Rows in 8 bits times the parts of a joined weight in 8 bits. What comes out is rounded, then stored. The rows lie
    in memory that goes on to a multiple of 16 of them."""
    layout, part_layout, narrowed = QUANTIZED_PRODUCT, PART, width == 2

    def multiply(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, size = given.rows, given.size
        parts = carray(at(given.parts), (given.num_parts,), part_layout)
        scales = carray(at(given.scales), (rows,), np.float32)
        panels = number_of_panels(parts, OUTPUTS)
        kept, turned = allocate(2 * MOST * TILE), allocate(ROWS * OUTPUTS * 4)
        filled, laid = allocate(OUTPUTS * size), allocate((rows + ROWS - 1) // ROWS * ROWS * size)
        for row in range(0, rows, ROWS):
            for k in range(0, size, TILE_BYTES):
                transpose(given.source + row * size + k, size, laid + row * size + k * ROWS, ROWS, ROWS, ROWS)
        begin_tiles()
        turn, piece = take(parameters, 0, panels)
        while piece >= 0:
            n, first, have, weight = outputs_of(parts, piece, OUTPUTS, size, filled)
            part = parts[n]
            row = 0
            while row < rows:
                many = rows_at_once(rows - row)
                _sum_up(weight, size, laid + row * size, many, kept)
                for i in range(many):
                    block, m = i // ROWS, i % ROWS
                    if m == 0:
                        transpose(kept + 2 * block * TILE, 64, turned, ROWS, OUTPUTS, ROWS)
                    place = given.target + ((row + i) * given.target_stride + part.beyond + first) * width
                    found, scale = turned + m * OUTPUTS * 4, scales[row + i]
                    finish_outputs(
                        found, scale, part, first, have, place, OUTPUTS, True, True, rounding, width, narrowed
                    )
                    add_outliers(given, part, row + i, first, have, place, stored, width, rounding)
                row += many
            turn, piece = take(parameters, turn, panels)
        end_tiles()
        release(kept)
        release(turned)
        release(filled)
        release(laid)

    return multiply
