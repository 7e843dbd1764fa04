"""Products with weights of 8 and 4 bits as bitsandbytes keeps them, as what one thread does of it: see `code`.

A few outputs' weights are unpacked to a panel, which all rows are then multiplied with; weights of 8 bits are read in
place where the processor multiplies bytes. So few rows take what reading the weight takes, and many what multiplying.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, float32, int32, njit, uint8

from batchchat.engines.cpu.kernels.abi import FLOAT16, PART, QUANTIZED_PRODUCT, QUANTIZED_ROWS, ROUNDED_ROWS
from batchchat.engines.cpu.kernels.processor import Level
from batchchat.engines.cpu.kernels.source.blocks import (
    finish,
    look_up,
    magnitude,
    multiply,
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
    thread,
    threads,
    wide,
)

_PER_127 = 7.874015718698502e-3
"""As bitsandbytes has it."""
_NEAR = 1 << 19
"""Bytes of rows that are multiplied with a panel before the next one is unpacked."""


def rounded_rows(stored: type, width: int, rounding: int, lanes: int) -> Code:
    """Rows as floats, rounded. Of each `2 * lanes` come those at even places first; 0 leaves them in their order."""
    layout = ROUNDED_ROWS

    def prepare(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        size, padded = given.size, given.padded
        for row in range(thread(), given.rows, threads()):
            x = carray(at(given.source + row * given.stride * width), (size,), stored)
            out = carray(at(given.target + row * padded * 4), (padded,), np.float32)
            if lanes > 0:
                for first in range(0, size, 2 * lanes):
                    for n in range(lanes):
                        out[first + n] = rounded(wide(x[first + 2 * n]), rounding)
                        out[first + lanes + n] = rounded(wide(x[first + 2 * n + 1]), rounding)
            else:
                for n in range(size):
                    out[n] = rounded(wide(x[n]), rounding)
            for n in range(size, padded):
                out[n] = float32(0.0)

    return prepare


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
        for row in range(thread(), given.rows, threads()):
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
            factor = settled(float32(127.0) / float_of(top)) if top > int32(0) else float32(0.0)
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

    return quantize


@njit(inline="always", **OPTIONS)
def block_scale(part: Any, number: Any) -> Any:
    """What a block of 4-bit numbers is multiplied with."""
    if part.nested == 0:
        return carray(at(part.scales), (number + 1,), np.float32)[number]
    small = carray(at(part.scales), (number + 1,), np.uint8)[number]
    scale = carray(at(part.nested), ((number >> 8) + 1,), np.float32)[number >> 8]
    return carray(at(part.code), (256,), np.float32)[small] * scale + float_of(part.offset)


@njit(inline="always", **OPTIONS)
def unpack_one_by_one(part: Any, first: Any, panel: Any, size: Any, rounding: Any) -> None:
    """Weights of 4 bits from number `first` on, the first of two in the upper half of a byte."""
    table = carray(at(part.table), (16,), np.float32)
    pairs = carray(at(part.weight), ((first + size + 1) // 2,), np.uint8)
    scale = block_scale(part, first >> part.shift)
    for k in range(size):
        place = first + k
        if place & ((1 << part.shift) - 1) == 0:
            scale = block_scale(part, place >> part.shift)
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


def multiplied(stored: type, width: int, level: Level, rounding: int, bits: int, run: int) -> Code:
    """Prepared rows times the parts of a joined weight. What comes out is rounded, then stored.

    `run`: of 4 bits, how many numbers are unpacked at once; 0 unpacks one after the other, whatever the sizes are.
    """
    layout, part_layout = QUANTIZED_PRODUCT, PART
    lanes, most_rows, together = level.lanes, level.rows, level.outputs
    small = bits == 8
    in_bytes = small and level.in_bytes
    number, itemsize = (np.int8, 1) if in_bytes else (np.float32, 4)
    places, narrowed = -(-most_rows * together // lanes) * lanes, width == 2

    def multiply_rows(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, size, stride = given.rows, given.size, given.padded * itemsize
        steps = stride // (4 * lanes)
        parts = carray(at(given.parts), (given.num_parts,), part_layout)
        row_scales = carray(at(given.scales), (rows,), np.float32)
        counts = carray(at(given.counts), (rows,), np.int32)
        panel_place, kept = allocate(together * given.padded * itemsize), allocate(places * 4)
        panel = carray(at(panel_place), (together * given.padded,), number)
        panel[:] = number(0)
        panels = 0
        for n in range(given.num_parts):
            panels += (parts[n].outputs + together - 1) // together
        begin, end = thread() * panels // threads(), (thread() + 1) * panels // threads()
        near = max(most_rows, _NEAR // stride // most_rows * most_rows)
        for block in range(0, rows, near):
            last, before = min(rows, block + near), 0
            for n in range(given.num_parts):
                part = parts[n]
                here = (part.outputs + together - 1) // together
                for own in range(max(0, begin - before), min(here, end - before)):
                    first, weight = own * together, panel_place
                    if in_bytes and given.padded == size and first + together <= part.outputs:
                        weight = part.weight + first * size
                    have = min(together, part.outputs - first)
                    for m in range(have if weight == panel_place else 0):
                        flat, target = (first + m) * size, m * given.padded
                        if small:
                            integers = carray(at(part.weight + flat), (size,), np.int8)
                            for k in range(size):
                                panel[target + k] = number(integers[k])
                        elif run > 0:
                            for k in range(0, size, run):
                                scale = block_scale(part, (flat + k) >> part.shift)
                                source, out = part.weight + (flat + k) // 2, panel_place + (target + k) * 4
                                look_up(source, part.table, scale, out, run, lanes, rounding)
                        else:
                            unpack_one_by_one(part, flat, panel[target : target + size], size, rounding)
                    for row in range(block, last, most_rows):
                        many, source = min(most_rows, last - row), given.source + row * stride
                        if many == 1:
                            multiply(source, stride, weight, stride, steps, kept, 1, together, lanes, in_bytes)
                        elif many == 2:
                            multiply(source, stride, weight, stride, steps, kept, 2, together, lanes, in_bytes)
                        else:
                            multiply(source, stride, weight, stride, steps, kept, most_rows, together, lanes, in_bytes)
                        for i in range(row, row + many):
                            place = given.target + (i * given.target_stride + part.beyond + first) * width
                            found, beyond = (i - row) * together, first * 4
                            scales, weights, bias = part.scales + beyond, part.sums + beyond, part.bias + beyond
                            own = row_scales[i] if small else float32(1.0)
                            if have == together:
                                finish(
                                    kept + found * 4, own, scales, weights, bias, place,
                                    together, small, in_bytes, rounding, narrowed,
                                )  # fmt: skip
                            else:
                                for m in range(have):
                                    finish(
                                        kept + (found + m) * 4, own, scales + m * 4, weights + m * 4, bias + m * 4,
                                        place + m * width, 1, small, in_bytes, rounding, narrowed,
                                    )  # fmt: skip
                            if small and counts[i] > 0:
                                out = carray(at(place), (have,), stored)
                                numbers = carray(at(given.numbers + i * given.stride * width), (size,), stored)
                                columns = carray(at(given.columns + i * size * 4), (counts[i],), np.int32)
                                for m in range(have):
                                    more = of_outliers(numbers, columns, part, first + m, size, rounding)
                                    out[m] = narrow(rounded(wide(out[m]) + more, rounding), out[m])
                before += here
        release(panel_place)
        release(kept)

    return multiply_rows
