"""Products in bfloat16 on the matrix units of processors that have tiles (Intel's AMX), as what one thread does of it.

A weight lies in memory in the order in which it is read, so that few rows take no longer than reading it does. Each row
of a product is summed up in one order, however many rows there are: its bits do not depend on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import TILED
from batchchat.engines.cpu.kernels.layouts import DEPTH, ROWS
from batchchat.engines.cpu.kernels.source.code import Code, allocate, at, release, take, threads, wide

_TILE = 1024
"""Bytes."""
_AHEAD = 8 * _TILE
"""How far ahead of its use a weight is fetched: less and more of it were slower."""
_MOST = 3
"""Tiles of rows that are multiplied at once: of as many the last ones are, two of all others, which are read once
then."""
_FEW = 64
"""Rows up to which a weight is read once, for all of them; where there are more, parts of it are read again from a near
cache."""
_NEAR = 1 << 18
"""Bytes of a part."""


def _assembly(*lines: str) -> Callable[..., None]:
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


def _clear(count: int) -> Callable[..., None]:
    return _assembly(*(f"tilezero %tmm{tile}" for tile in range(2 * count)))


def _multiply(count: int) -> Callable[..., None]:
    """Add to 2 * `count` tiles of sums the products of two tiles of weights at $0 with `count` tiles of rows at $3 to
    $5, whose rows are $2 bytes apart. $1 is 64."""
    fetch = [f"prefetcht0 {_AHEAD + line}($0)" for line in range(0, 2 * _TILE, 64)]
    if count == 3:  # there is one tile left for rows, which are read twice
        lines = []
        for half in range(2):
            lines += [f"tileloadd {half * _TILE}($0,$1,1), %tmm6", *fetch[half::2]]
            for tile in range(count):
                lines.append(f"tileloadd (${3 + tile},$2,1), %tmm7")
                lines.append(f"tdpbf16ps %tmm6, %tmm7, %tmm{2 * tile + half}")
        return _assembly(*lines)
    lines = ["tileloadd ($0,$1,1), %tmm6", f"tileloadd {_TILE}($0,$1,1), %tmm7", *fetch]
    for tile in range(count):
        rows = f"%tmm{4 + tile}"
        lines.append(f"tileloadd (${3 + tile},$2,1), {rows}")
        lines += [f"tdpbf16ps %tmm{6 + half}, {rows}, %tmm{2 * tile + half}" for half in range(2)]
    return _assembly(*lines)


def _keep(count: int) -> Callable[..., None]:
    """Write the tiles of sums to $0, two side by side. $1 is 128."""
    places = [(2 * tile + half, 2 * _TILE * tile + 64 * half) for tile in range(count) for half in range(2)]
    return _assembly(*(f"tilestored %tmm{tile}, {place}($0,$1,1)" for tile, place in places))


_narrow_32 = _assembly("vmovups 64($0), %zmm16", "vcvtne2ps2bf16 ($0), %zmm16, %zmm16", "vmovdqu16 %zmm16, ($1)")
"""Write 32 floats at $0 in bfloat16 to $1."""
_configure, _release = _assembly("ldtilecfg ($0)"), _assembly("tilerelease")
_clear_1, _clear_2, _clear_3 = _clear(1), _clear(2), _clear(3)
_multiply_1, _multiply_2, _multiply_3 = _multiply(1), _multiply(2), _multiply(3)
_keep_1, _keep_2, _keep_3 = _keep(1), _keep(2), _keep(3)


def product() -> Code:
    """Rows `[rows, size]` times a packed weight, plus a bias `[outputs]` if its address is not 0. The rows lie in
    memory that goes on to a multiple of 16 of them."""

    layout = TILED

    def multiply(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, size, outputs = given.rows, given.size, given.outputs
        source, weight, out, bias, config = given.source, given.weight, given.target, given.bias, given.config
        wide_block = 2 * ROWS
        kept = allocate(_MOST * ROWS * wide_block * 4)
        sums = carray(at(kept), (_MOST * ROWS * wide_block,), np.float32)
        blocks, chunks, stride = outputs // wide_block, size // DEPTH, size * 2
        share = (blocks + threads() - 1) // threads()
        _configure(config, 0, 0, 0, 0, 0, 0)
        together = 1 if rows <= _FEW else min(share, max(1, _NEAR // (chunks * 2 * _TILE)))
        pieces = (blocks + together - 1) // together
        turn, piece = take(parameters, 0, pieces)
        while piece >= 0:
            group = piece * together
            first = 0
            while first < rows:
                have = rows - first
                if have > _MOST * ROWS or have <= 2 * ROWS:
                    have = min(2 * ROWS, have)
                for block in range(group, min(blocks, group + together)):
                    tile = weight + block * chunks * 2 * _TILE
                    one = source + first * stride
                    if have <= ROWS:
                        _clear_1(0, 0, 0, 0, 0, 0, 0)
                        for _ in range(chunks):
                            _multiply_1(tile, 64, stride, one, 0, 0, 0)
                            tile += 2 * _TILE
                            one += 64
                        _keep_1(kept, 128, 0, 0, 0, 0, 0)
                    elif have <= 2 * ROWS:
                        other = one + ROWS * stride
                        _clear_2(0, 0, 0, 0, 0, 0, 0)
                        for _ in range(chunks):
                            _multiply_2(tile, 64, stride, one, other, 0, 0)
                            tile += 2 * _TILE
                            one += 64
                            other += 64
                        _keep_2(kept, 128, 0, 0, 0, 0, 0)
                    else:
                        other, last = one + ROWS * stride, one + 2 * ROWS * stride
                        _clear_3(0, 0, 0, 0, 0, 0, 0)
                        for _ in range(chunks):
                            _multiply_3(tile, 64, stride, one, other, last, 0)
                            tile += 2 * _TILE
                            one += 64
                            other += 64
                            last += 64
                        _keep_3(kept, 128, 0, 0, 0, 0, 0)
                    for row in range(have):
                        place = out + ((first + row) * outputs + block * wide_block) * 2
                        if bias != 0:
                            more = carray(at(bias + block * wide_block * 2), (wide_block,), np.uint16)
                            for n in range(wide_block):
                                sums[row * wide_block + n] += wide(more[n])
                        _narrow_32(kept + row * wide_block * 4, place, 0, 0, 0, 0, 0)
                first += have
            turn, piece = take(parameters, turn, pieces)
        _release(0, 0, 0, 0, 0, 0, 0)
        release(kept)

    return multiply
