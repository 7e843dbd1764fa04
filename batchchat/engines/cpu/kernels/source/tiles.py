"""Products in bfloat16 on the matrix units of processors that have tiles (Intel's AMX), as what one thread does of it.

A weight lies in memory in the order in which it is read, by two streams, so that few rows take no longer than reading
it does. Each row of a product is summed up in one order, however many rows there are: its bits do not depend on the
others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import WEIGHTED
from batchchat.engines.cpu.kernels.layouts import DEPTH, ROWS
from batchchat.engines.cpu.kernels.source.code import Code, allocate, at, release, take, threads, wide

TILE = 1024
"""Bytes."""
OUTPUTS = 2 * ROWS
"""Those of two tiles of sums side by side."""
_AHEAD = 2 * TILE
"""How far ahead of its use a weight is fetched: less and more of it were slower."""
MOST = 3
"""Tiles of rows that are multiplied at once: of as many the last ones are, two of all others, which are read once
then."""
_FEW = 64
"""Rows up to which a weight is read once, for all of them; where there are more, parts of it are read again from a near
cache."""
_NEAR = 1 << 18
"""Bytes of a part."""

_WEIGHTS = "$0", "$6"
"""Where `_multiply` finds those of two tiles, which lie apart: a processor reads two streams faster than one."""


def assembly(*lines: str) -> Callable[..., None]:
    """A function of seven integers, which the lines know as $0 to $6."""

    @intrinsic
    def run(_: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] * 7)
            builder.asm(kind, "\n".join(lines), ",".join(["r"] * 7 + ["~{memory}", "~{zmm16}"]), arguments, True)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    found: Callable[..., None] = run
    return found


def _begin(count: int) -> Callable[..., None]:
    """Begin all rows of the tiles of sums with the 32 floats at $0. $1 is 0."""
    return assembly(*(f"tileloadd {tile % 2 * 64}($0,$1,1), %tmm{tile}" for tile in range(2 * count)))


def _multiply(count: int) -> Callable[..., None]:
    """Add to 2 * `count` tiles of sums the products of two tiles of weights at $0 and $6 with `count` tiles of rows at
    $3 to $5, whose rows are $2 bytes apart. $1 is 64."""
    fetches = [[f"prefetcht0 {_AHEAD + line}({weight})" for line in range(0, TILE, 64)] for weight in _WEIGHTS]
    if count == 3:  # there is one tile left for rows, which are read twice
        lines = []
        for half, weight in enumerate(_WEIGHTS):
            lines += [f"tileloadd ({weight},$1,1), %tmm6", *fetches[half]]
            for tile in range(count):
                lines.append(f"tileloadd (${3 + tile},$2,1), %tmm7")
                lines.append(f"tdpbf16ps %tmm6, %tmm7, %tmm{2 * tile + half}")
        return assembly(*lines)
    lines = [
        line
        for half, weight in enumerate(_WEIGHTS)
        for line in (f"tileloadd ({weight},$1,1), %tmm{6 + half}", *fetches[half])
    ]
    for tile in range(count):
        rows = f"%tmm{4 + tile}"
        lines.append(f"tileloadd (${3 + tile},$2,1), {rows}")
        lines += [f"tdpbf16ps %tmm{6 + half}, {rows}, %tmm{2 * tile + half}" for half in range(2)]
    return assembly(*lines)


def _keep(count: int) -> Callable[..., None]:
    """Write the tiles of sums to $0, two side by side. $1 is 128."""
    places = [(2 * tile + half, 2 * TILE * tile + 64 * half) for tile in range(count) for half in range(2)]
    return assembly(*(f"tilestored %tmm{tile}, {place}($0,$1,1)" for tile, place in places))


_narrow_32 = assembly("vmovups 64($0), %zmm16", "vcvtne2ps2bf16 ($0), %zmm16, %zmm16", "vmovdqu16 %zmm16, ($1)")
"""Write 32 floats at $0 in bfloat16 to $1."""
_configure, _release = assembly("ldtilecfg ($0)"), assembly("tilerelease")
_begin_1, _begin_2, _begin_3 = _begin(1), _begin(2), _begin(3)
_multiply_1, _multiply_2, _multiply_3 = _multiply(1), _multiply(2), _multiply(3)
_keep_1, _keep_2, _keep_3 = _keep(1), _keep(2), _keep(3)


@njit(inline="always")
def begin_tiles() -> None:
    """All eight tiles with 16 rows of 64 bytes, until `end_tiles`."""
    place = allocate(64)
    config = carray(at(place), (64,), np.uint8)
    config[:] = 0
    config[0] = 1
    for tile in range(8):
        config[16 + 2 * tile] = 64
        config[48 + tile] = ROWS
    _configure(place, 0, 0, 0, 0, 0, 0)
    release(place)


@njit(inline="always")
def end_tiles() -> None:
    _release(0, 0, 0, 0, 0, 0, 0)


@njit(inline="always")
def rows_at_once(left: Any) -> Any:
    """How many of the rows that are left are multiplied next."""
    return left if 2 * ROWS < left <= MOST * ROWS else min(2 * ROWS, left)


@njit(inline="always")
def sum_up(begin: Any, tile: Any, chunks: Any, one: Any, stride: Any, have: Any, kept: Any) -> None:
    """Write to `kept` the sums of 32 outputs, whose weights are at `tile`, of up to `MOST` tiles of rows at `one`. They
    begin with the 32 floats at `begin`."""
    apart = chunks * TILE
    if have <= ROWS:
        _begin_1(begin, 0, 0, 0, 0, 0, 0)
        for _ in range(chunks):
            _multiply_1(tile, 64, stride, one, 0, 0, tile + apart)
            tile += TILE
            one += 64
        _keep_1(kept, 128, 0, 0, 0, 0, 0)
    elif have <= 2 * ROWS:
        _begin_2(begin, 0, 0, 0, 0, 0, 0)
        for _ in range(chunks):
            _multiply_2(tile, 64, stride, one, one + ROWS * stride, 0, tile + apart)
            tile += TILE
            one += 64
        _keep_2(kept, 128, 0, 0, 0, 0, 0)
    else:
        _begin_3(begin, 0, 0, 0, 0, 0, 0)
        for _ in range(chunks):
            _multiply_3(tile, 64, stride, one, one + ROWS * stride, one + 2 * ROWS * stride, tile + apart)
            tile += TILE
            one += 64
        _keep_3(kept, 128, 0, 0, 0, 0, 0)


def product() -> Code:
    """Rows `[rows, size]` times a packed weight, plus a bias `[outputs]` if its address is not 0. The rows lie in
    memory that goes on to a multiple of 16 of them."""

    layout = WEIGHTED

    def multiply(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, size, outputs, bias = given.rows, given.size, given.outputs, given.bias
        kept, begin = allocate(MOST * ROWS * OUTPUTS * 4), allocate(OUTPUTS * 4)
        begins = carray(at(begin), (OUTPUTS,), np.float32)
        begins[:] = np.float32(0.0)
        blocks, chunks, stride = outputs // OUTPUTS, size // DEPTH, size * 2
        share = (blocks + threads() - 1) // threads()
        begin_tiles()
        together = 1 if rows <= _FEW else min(share, max(1, _NEAR // (chunks * 2 * TILE)))
        pieces = (blocks + together - 1) // together
        turn, piece = take(parameters, 0, pieces)
        while piece >= 0:
            group, first = piece * together, 0
            while first < rows:
                have = rows_at_once(rows - first)
                for block in range(group, min(blocks, group + together)):
                    if bias != 0:
                        more = carray(at(bias + block * OUTPUTS * 2), (OUTPUTS,), np.uint16)
                        for n in range(OUTPUTS):
                            begins[n] = wide(more[n])
                    tile = given.weight + block * chunks * 2 * TILE
                    sum_up(begin, tile, chunks, given.source + first * stride, stride, have, kept)
                    for row in range(have):
                        place = given.target + ((first + row) * outputs + block * OUTPUTS) * 2
                        _narrow_32(kept + row * OUTPUTS * 4, place, 0, 0, 0, 0, 0)
                first += have
            turn, piece = take(parameters, turn, pieces)
        end_tiles()
        release(kept)
        release(begin)

    return multiply
