"""Products with weights of 8 and 4 bits as bitsandbytes keeps them, as what one thread does of it: see `code`.

A few outputs' weights are unpacked to a panel, which all rows are then multiplied with (see `panels`); weights of 8
bits are read in place where the processor multiplies bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import carray, float32, int8, int32, int64, njit, uint8

from batchchat.engines.cpu.kernels.abi import BFLOAT16, FLOAT16, FLOAT32, PART, QUANTIZED_PRODUCT, QUANTIZED_ROWS
from batchchat.engines.cpu.kernels.layouts import CHUNK
from batchchat.engines.cpu.kernels.processor import Level
from batchchat.engines.cpu.kernels.source.blocks import (
    finish,
    magnitude,
    multiply_bytes,
    nearest,
    rounded,
    settled,
)
from batchchat.engines.cpu.kernels.source.code import (
    OPTIONS,
    Code,
    allocate,
    at,
    float_of,
    narrow,
    release,
    take,
    wide,
)
from batchchat.engines.cpu.kernels.source.four_bits import look_up, look_up_rounded
from batchchat.engines.cpu.kernels.source.panels import HELD, NEAR, lay_out, multiply, rows_near
from batchchat.engines.cpu.kernels.source.transposing import transpose
from batchchat.engines.cpu.kernels.source.vectors import fetch

_PER_127 = 7.874015718698502e-3
"""As bitsandbytes has it."""
_BYTE_ROWS = 3
"""Rows of bytes that are multiplied at once."""


def quantized_rows(stored: type, width: int, in_bytes: bool) -> Code:
    """Rows in 8 bits by their largest number, which goes to `scales`; as bytes, to which 128 is added, or floats.

    Numbers whose size in half precision is at least `threshold` become zero; how many a row has goes to `counts`, and
    their places to `columns` `[rows, size]`. So does what is no number.

    Source: https://arxiv.org/abs/2208.07339, each row by itself.
    """
    layout = QUANTIZED_ROWS
    half = FLOAT16

    def quantize(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        size, padded, threshold = given.size, given.padded, int32(given.threshold)
        scales = carray(at(given.scales), (given.rows,), np.float32)
        counts = carray(at(given.counts), (given.rows,), np.int32)
        turn, row = take(parameters, 0, given.rows)
        while row >= 0:
            x = carray(at(given.source + row * given.stride * width), (size,), stored)
            top, count = int32(0), int32(0)
            for n in range(size):
                top = max(top, magnitude(rounded(wide(x[n]), half)))
            if top >= threshold:
                columns = carray(at(given.columns + row * size * 4), (size,), np.int32)
                top = int32(0)
                for n in range(size):
                    large = magnitude(rounded(wide(x[n]), half))
                    if large >= threshold:
                        columns[count] = n
                        count += int32(1)
                    else:
                        top = max(top, large)
            scales[row], counts[row] = float_of(top), count
            factor = float32(0.0)
            if top > int32(0):  # torch multiplies by a reciprocal where it divides a number by a tensor
                factor = settled(float32(127.0) * settled(float32(1.0) / float_of(top)))
            if in_bytes:
                small = carray(at(given.target + row * padded), (padded,), np.uint8)
                for n in range(size):
                    number = rounded(wide(x[n]), half)
                    whole = nearest(number * factor) if magnitude(number) < threshold else float32(0.0)
                    small[n] = uint8(int32(whole) + int32(128))
                for n in range(size, padded):
                    small[n] = uint8(0)
            else:
                floats = carray(at(given.target + row * padded * 4), (padded,), np.float32)
                for n in range(size):
                    number = rounded(wide(x[n]), half)
                    floats[n] = nearest(number * factor) if magnitude(number) < threshold else float32(0.0)
                for n in range(size, padded):
                    floats[n] = float32(0.0)
            turn, row = take(parameters, turn, given.rows)

    return quantize


@njit(inline="always", **OPTIONS)
def number_at(address: Any, kind: Any) -> Any:
    """One number. An array's would be counted from its end as well, which takes longer."""
    return carray(at(address), (1,), kind)[0]


@njit(inline="always", **OPTIONS)
def block_scale(scales: Any, nested: Any, code: Any, offset: Any, number: Any) -> Any:
    """What a block of 4-bit numbers is multiplied with: see `abi.PART`."""
    if nested == 0:
        return number_at(scales + 4 * number, np.float32)
    place = code + 4 * int64(number_at(scales + number, np.uint8))
    return number_at(place, np.float32) * number_at(nested + 4 * (number >> 8), np.float32) + offset


@njit(inline="always", **OPTIONS)
def block_scales(out: Any, scales: Any, nested: Any, code: Any, offset: Any, first: Any, size: Any, shift: Any) -> None:
    """Those of the blocks of numbers `first`, `first + size` and so on."""
    if nested == 0:
        for m in range(len(out)):
            out[m] = number_at(scales + 4 * ((first + m * size) >> shift), np.float32)
    else:
        for m in range(len(out)):
            out[m] = block_scale(scales, nested, code, offset, (first + m * size) >> shift)


@njit(inline="always", **OPTIONS)
def unpack_one_by_one(part: Any, first: Any, panel: Any, size: Any, rounding: Any) -> None:
    """Weights of 4 bits from number `first` on, the first of two in the upper half of a byte."""
    table = carray(at(part.table), (16,), np.float32)
    pairs = carray(at(part.weight), ((first + size + 1) // 2,), np.uint8)
    nested, offset = part.nested, float_of(part.offset)
    scale = block_scale(part.scales, nested, part.code, offset, first >> part.shift)
    for k in range(size):
        place = first + k
        if place & ((1 << part.shift) - 1) == 0:
            scale = block_scale(part.scales, nested, part.code, offset, place >> part.shift)
        pair = pairs[place >> 1]
        code = pair & uint8(15) if place & 1 else pair >> uint8(4)
        panel[k] = rounded(table[code] * scale, rounding)


@njit(inline="always", **OPTIONS)
def of_outliers(numbers: Any, columns: Any, part: Any, output: Any, size: Any, rounding: Any) -> Any:
    """Those numbers of a row times the weights of their columns, made from 8 bits."""
    weight = carray(at(part.weight + output * size), (size,), np.int8)
    scale = carray(at(part.scales), (output + 1,), np.float32)[output]
    total = float32(0.0)
    for n in range(len(columns)):
        k = columns[n]
        other = float32(weight[k]) * scale * float32(_PER_127)
        total += wide(numbers[k]) * rounded(other, rounding)
    return total


def multiplied_bytes(stored: type, width: int, lanes: int, rounding: int) -> Code:
    """Rows in 8 bits times the parts of a joined weight in 8 bits. What comes out is rounded, then stored."""
    layout, part_layout = QUANTIZED_PRODUCT, PART
    most_rows, together = _BYTE_ROWS, lanes // 2
    places, narrowed = -(-most_rows * together // lanes) * lanes, width == 2

    def multiply_rows(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, size, stride = given.rows, given.size, given.padded
        steps = stride // (4 * lanes)
        parts = carray(at(given.parts), (given.num_parts,), part_layout)
        row_scales = carray(at(given.scales), (rows,), np.float32)
        panel_place, kept = allocate(together * stride), allocate(places * 4)
        panel = carray(at(panel_place), (together * stride,), np.int8)
        panel[:] = int8(0)
        panels = number_of_panels(parts, together)
        near = max(most_rows, NEAR // stride // most_rows * most_rows)
        pieces = (rows + near - 1) // near * panels
        turn, piece = take(parameters, 0, pieces)
        while piece >= 0:
            block = piece // panels * near
            last = min(rows, block + near)
            n, own = part_of(parts, piece % panels, together)
            part = parts[n]
            first, weight = own * together, panel_place
            have = min(together, part.outputs - first)
            if stride == size and have == together:
                weight = part.weight + first * size
            else:
                integers = carray(at(part.weight + first * size), (have, size), np.int8)
                for m in range(have):
                    for k in range(size):
                        panel[m * stride + k] = integers[m, k]
            for row in range(block, last, most_rows):
                many, source = min(most_rows, last - row), given.source + row * stride
                if many == 1:
                    multiply_bytes(source, stride, weight, stride, steps, kept, 1, together, lanes)
                elif many == 2:
                    multiply_bytes(source, stride, weight, stride, steps, kept, 2, together, lanes)
                else:
                    multiply_bytes(source, stride, weight, stride, steps, kept, most_rows, together, lanes)
                for i in range(row, row + many):
                    place = given.target + (i * given.target_stride + part.beyond + first) * width
                    found, scale = kept + (i - row) * together * 4, row_scales[i]
                    finish_outputs(
                        found, scale, part, first, have, place, together, True, True, rounding, width, narrowed
                    )
                    add_outliers(given, part, i, first, have, place, stored, width, rounding)
            turn, piece = take(parameters, turn, pieces)
        release(panel_place)
        release(kept)

    return multiply_rows


@njit(inline="always", **OPTIONS)
def number_of_panels(parts: Any, together: Any) -> Any:
    panels = 0
    for n in range(len(parts)):
        panels += (parts[n].outputs + together - 1) // together
    return panels


@njit(inline="always", **OPTIONS)
def part_of(parts: Any, panel: Any, together: Any) -> Any:
    """The number of the part that a panel of all parts belongs to, and which one of its own panels it is."""
    n = 0
    while panel >= (parts[n].outputs + together - 1) // together:
        panel -= (parts[n].outputs + together - 1) // together
        n += 1
    return n, panel


@njit(inline="always", **OPTIONS)
def finish_outputs(
    found: Any, own: Any, part: Any, first: Any, have: Any, place: Any, together: Any,
    small: Any, in_bytes: Any, rounding: Any, width: Any, narrowed: Any,
) -> None:  # fmt: skip
    """Make `have` outputs of a row of their sums at the address `found`: all of a panel at once, or one by one."""
    beyond = first * 4
    scales, weights, bias = part.scales + beyond, part.sums + beyond, part.bias + beyond
    if have == together:
        finish(found, own, scales, weights, bias, place, together, small, in_bytes, rounding, narrowed)
    else:
        for m in range(have):
            one = m * 4
            finish(
                found + one, own, scales + one, weights + one, bias + one, place + m * width,
                1, small, in_bytes, rounding, narrowed,
            )  # fmt: skip


@njit(inline="always", **OPTIONS)
def add_outliers(
    given: Any, part: Any, row: Any, first: Any, have: Any, place: Any, stored: Any, width: Any, rounding: Any
) -> None:
    """What a row's large numbers make of `have` outputs, whose sums are at an address."""
    count = carray(at(given.counts), (given.rows,), np.int32)[row]
    if count > 0:
        out = carray(at(place), (have,), stored)
        numbers = carray(at(given.numbers + row * given.stride * width), (given.size,), stored)
        columns = carray(at(given.columns + row * given.size * 4), (count,), np.int32)
        for m in range(have):
            more = of_outliers(numbers, columns, part, first + m, given.size, rounding)
            out[m] = narrow(rounded(wide(out[m]) + more, rounding), out[m])


@njit(inline="always", **OPTIONS)
def few_outputs(packed: Any, apart: Any, have: Any, size: Any, out: Any) -> Any:
    """`size` bytes of each of `have` outputs, side by side at the address `out`, which is returned."""
    for m in range(have):
        source = carray(at(packed + m * apart), (size,), np.uint8)
        target = carray(at(out + m * size), (size,), np.uint8)
        for n in range(size):
            target[n] = source[n]
    return out


@njit(inline="always", **OPTIONS)
def outputs_of(parts: Any, piece: Any, together: Any, bytes_each: Any, filled: Any) -> Any:
    """Of a panel of all parts: its part's number, its first output there, how many it has, and where the weights of
    `together` outputs lie, `bytes_each` after the other: those of fewer are written to `filled`, since all are read."""
    n, own = part_of(parts, piece, together)
    first = own * together
    have, weight = min(together, parts[n].outputs - first), parts[n].weight + first * bytes_each
    if have < together:
        weight = few_outputs(weight, bytes_each, have, bytes_each, filled)
    return n, first, have, weight


def multiplied(stored: type, width: int, level: Level, rounding: int, bits: int, run: int) -> Code:
    """Rows times the parts of a joined weight, in floats: of 4 bits the rows themselves, rounded; of 8 bits those that
    are prepared. What comes out is rounded, then stored.

    `run`: how many numbers of each weight are unpacked at once; 0 unpacks one after the other, whatever the sizes are.
    """
    layout, part_layout = QUANTIZED_PRODUCT, PART
    lanes, most, together = level.registers.lanes, level.registers.rows, level.registers.panel
    small, narrowed, floats = bits == 8, width == 2, HELD.index(torch.float32)
    read = np.float32 if small else stored
    looked_up = run > 0 and not small
    unpack = look_up_rounded if rounding == BFLOAT16 else look_up
    row_rounding = FLOAT32 if small else rounding

    def multiply_rows(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, size = given.rows, given.size
        chunks = (size + CHUNK - 1) // CHUNK
        source, apart = (given.source, given.padded * 4) if small else (given.numbers, given.stride * width)
        parts = carray(at(given.parts), (given.num_parts,), part_layout)
        row_scales = carray(at(given.scales), (rows,), np.float32)
        panels = number_of_panels(parts, together)
        near = rows_near(rows, chunks, most)
        groups, laid_out = (rows + near - 1) // near, -1
        laid, kept = allocate(near * chunks * CHUNK * 4), allocate(near * together * 4)
        long = run if run > 0 else size
        padded = (long + CHUNK - 1) // CHUNK * CHUNK
        panel_place, unpacked = allocate(together * padded * 4), allocate(together * long * 4)
        scaled = allocate(together * 4)
        factors = carray(at(scaled), (together,), np.float32)
        factors[:] = float32(0.0)
        numbers = carray(at(laid), (near * chunks * CHUNK,), np.float32)
        sums = carray(at(kept), (near * together,), np.float32)
        panel = carray(at(panel_place), (together * padded,), np.float32)
        rows_of_panel = carray(at(unpacked), (together, long), np.float32)
        panel[:] = float32(0.0)
        rows_of_panel[:] = float32(0.0)
        turn, piece = take(parameters, 0, groups * panels)
        while piece >= 0:
            group = piece // panels
            start = group * near
            many = min(near, rows - start)
            blocks = (many + most - 1) // most
            each = (many + blocks - 1) // blocks
            if group != laid_out:
                lay_out(numbers, source + start * apart, apart, many, each, size, chunks, read, row_rounding)
                laid_out = group
            n, own = part_of(parts, piece % panels, together)
            part = parts[n]
            first = own * together
            have = min(together, part.outputs - first)
            weight, table, shift = part.weight, part.table, part.shift
            nested, offset = part.nested, float_of(part.offset)
            scales_of, code_of = part.scales, part.code
            sums[: many * together] = float32(0.0)
            for k in range(0, size, long):
                for line in range(0, together * long * bits // 8, 64):
                    fetch(weight + ((first + together) * size + k * together) * bits // 8 + line)
                flat = first * size + k
                if looked_up:
                    block_scales(factors[:have], scales_of, nested, code_of, offset, flat, size, shift)
                    packed, apart_of = weight + flat // 2, size // 2
                    if have < together:  # it reads those of all outputs
                        packed, apart_of = few_outputs(packed, size // 2, have, run // 2, unpacked), run // 2
                    unpack(packed, apart_of, table, scaled, panel_place, run, together, lanes, rounding)
                elif small:
                    for m in range(have):
                        integers = carray(at(weight + flat + m * size), (long,), np.int8)
                        for d in range(long):
                            rows_of_panel[m, d] = float32(integers[d])
                else:
                    for m in range(have):
                        unpack_one_by_one(part, flat + m * size, rows_of_panel[m], size, rounding)
                if run > 0 and not looked_up:
                    transpose(unpacked, run * 4, panel_place, run, together, lanes)
                elif run == 0:
                    for d in range(size):
                        for m in range(have):
                            panel[d * together + m] = rows_of_panel[m, d]
                for block in range(blocks):
                    count = min(each, many - block * each)
                    lies = laid + 4 * (block * each * chunks * CHUNK + k * count)
                    target = kept + 4 * block * each * together
                    multiply(lies, panel_place, target, padded // CHUNK, 0, 0, count, floats, lanes, most, 0)
            for row in range(many):
                i = start + row
                place = given.target + (i * given.target_stride + part.beyond + first) * width
                found, scale = kept + row * together * 4, row_scales[i] if small else float32(1.0)
                finish_outputs(
                    found, scale, part, first, have, place, together, small, False, rounding, width, narrowed
                )
                if small:
                    add_outliers(given, part, i, first, have, place, stored, width, rounding)
            turn, piece = take(parameters, turn, groups * panels)
        release(laid)
        release(kept)
        release(panel_place)
        release(unpacked)
        release(scaled)

    return multiply_rows
