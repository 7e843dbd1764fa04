"""Attention of rows over their slots, as what one thread does of it: see `code`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, float32, int64, njit

from batchchat.engines.cpu.kernels.code import (
    OPTIONS,
    Code,
    at,
    float_of,
    narrow,
    power,
    thread,
    threads,
    wide,
)
from batchchat.engines.cpu.kernels.vectors import LANES, add_weighted, dots, fetch, has_pairs, highest


def attention(stored: type, width: int, sizes: tuple[int, int] | None) -> Code:
    """Attention of rows over their slots. `width`: bytes of a stored number. `sizes`: of the keys and values that it is
    compiled for, multiples of 16; without them it is for heads of any sizes, by loops instead of vectors.

    One item of work is a row with one key head: a few tokens of a sequence, which see those before. Each key is read
    once for all queries of the row, 16 at a time. No item depends on another, so a row's numbers do not depend on what
    else is computed.
    """
    fixed = sizes is not None
    key_size, value_size = sizes or (LANES, LANES)
    in_pairs = fixed and width == 2 and key_size % (2 * LANES) == 0 and has_pairs()

    def attend(parameters: Any) -> None:
        given = carray(parameters, (15,), np.int64)
        rows, heads, shared = given[0], given[1], given[12]
        query, query_token, query_head = given[2], given[3], given[4]
        out, out_token = given[5], given[6]
        scaling, window, sinks = float_of(given[7]), given[8], given[11]
        key_dim, value_dim = given[13], given[14]
        if fixed:
            key_dim, value_dim = key_size, value_size
        plan = carray(at(given[9]), (rows, 6), np.int64)
        bases = carray(at(given[10]), (1 << 16, 2), np.int64)
        widest = LANES * max(key_dim, value_dim)
        sixteen = np.zeros(widest, np.float32)
        few: Any = np.zeros(LANES * key_dim, stored)
        for item in range(thread(), rows * heads, threads()):
            row, head = item // heads, item % heads
            first, count, slot, length, end, pool = plan[row]
            place = (slot * heads + head) * length * width
            keys = carray(at(bases[pool, 0] + place * key_dim), (end * key_dim,), stored)
            values = carray(at(bases[pool, 1] + place * value_dim), (end * value_dim,), stored)
            num = count * shared
            queries = np.empty(num * key_dim, np.float32)
            paired = np.empty(num * key_dim, stored)
            for n in range(num):
                token, own = first + n // shared, head * shared + n % shared
                numbers = carray(at(query + (token * query_token + own * query_head) * width), (key_dim,), stored)
                for d in range(key_dim):
                    queries[n * key_dim + d] = wide(numbers[d])
                    paired[n * key_dim + d] = numbers[d]
            begin = max(0, end - count + 1 - window)
            blocks = (end - begin + LANES - 1) // LANES
            scores = np.empty((num, blocks * LANES), np.float32)
            for block in range(blocks):
                start = begin + block * LANES
                beyond = int64(keys.ctypes.data) + (start + LANES) * key_dim * width
                for line in range(0, widest * width, 64):
                    fetch(beyond + line)
                have = min(LANES, end - start) * key_dim
                if in_pairs:
                    place = beyond - LANES * key_dim * width
                    if have < LANES * key_dim:
                        for d in range(have):
                            few[d] = keys[start * key_dim + d]
                        place = int64(few.ctypes.data)
                    for n in range(num):
                        target = int64(scores.ctypes.data) + (n * blocks + block) * LANES * 4
                        dots(int64(paired.ctypes.data) + n * key_dim * width, place, target, key_size, in_pairs)
                else:
                    for d in range(have):
                        sixteen[d] = wide(keys[start * key_dim + d])
                    for n in range(num):
                        if fixed:
                            own = int64(queries.ctypes.data) + n * key_dim * 4
                            target = int64(scores.ctypes.data) + (n * blocks + block) * LANES * 4
                            dots(own, int64(sixteen.ctypes.data), target, key_size, in_pairs)
                        else:
                            for s in range(LANES):
                                score = float32(0.0)
                                for d in range(key_dim):
                                    score += queries[n * key_dim + d] * sixteen[s * key_dim + d]
                                scores[n, block * LANES + s] = score
            for line in range(0, widest * width, 64):
                fetch(int64(values.ctypes.data) + begin * value_dim * width + line)
            for n in range(num):
                seen = end - count + n // shared + 1
                sink = float32(0.0)
                if sinks != 0:
                    sink = wide(carray(at(sinks), (heads * shared,), stored)[head * shared + n % shared])
                into_shares(scores[n], max(0, seen - window) - begin, seen - begin, scaling, sinks != 0, sink)
            sums = np.zeros(num * value_dim, np.float32)
            for block in range(blocks):
                start = begin + block * LANES
                beyond = int64(values.ctypes.data) + (start + LANES) * value_dim * width
                for line in range(0, widest * width, 64):
                    fetch(beyond + line)
                have = min(LANES, end - start) * value_dim
                for d in range(have):
                    sixteen[d] = wide(values[start * value_dim + d])
                for d in range(have, LANES * value_dim):
                    sixteen[d] = float32(0.0)
                for n in range(num):
                    if fixed:
                        total = int64(sums.ctypes.data) + n * value_dim * 4
                        shares = int64(scores.ctypes.data) + (n * blocks + block) * LANES * 4
                        add_weighted(total, shares, int64(sixteen.ctypes.data), value_size)
                    else:
                        for s in range(LANES):
                            share = scores[n, block * LANES + s]
                            for d in range(value_dim):
                                sums[n * value_dim + d] += share * sixteen[s * value_dim + d]
            for n in range(num):
                token, own = first + n // shared, head * shared + n % shared
                written = carray(at(out + (token * out_token + own * value_dim) * width), (value_dim,), stored)
                for d in range(value_dim):
                    written[d] = narrow(sums[n * value_dim + d], written[d])

    return attend


@njit(inline="always", **OPTIONS)
def into_shares(scores: Any, low: Any, high: Any, scaling: Any, with_sink: Any, sink: Any) -> None:
    """Turn the scores of one query into shares, in place: those from `low` to `high` add up to 1, or with a sink to
    what the sink leaves; all others are 0."""
    scores[:low] = float32(-np.inf)
    scores[high:] = float32(-np.inf)
    top = highest(int64(scores.ctypes.data), len(scores) // LANES) * scaling
    total, nothing = float32(0.0), float32(0.0)
    if with_sink:
        top = max(top, sink)
        total = power(sink - top)
    part = scores[low:high]
    for s in range(high - low):
        nothing += part[s] * float32(0.0)
        weight = power(part[s] * scaling - top)
        part[s] = weight
        total += weight
    over = float32(1.0) / total + nothing  # a score was no number: neither is what comes of it
    for s in range(high - low):
        part[s] *= over
    scores[:low] = float32(0.0)
    scores[high:] = float32(0.0)


def keeping(stored: type, width: int) -> Code:
    """Writes the new keys and values of rows into their slots."""

    def keep(parameters: Any) -> None:
        given = carray(parameters, (12,), np.int64)
        rows, heads, key_dim, value_dim = given[0], given[1], given[10], given[11]
        plan = carray(at(given[8]), (rows, 6), np.int64)
        bases = carray(at(given[9]), (1 << 16, 2), np.int64)
        for row in range(thread(), rows, threads()):
            first, count, slot, length, end, pool = plan[row]
            for which in range(2):
                source, of_token, of_head = given[2 + 3 * which : 5 + 3 * which]
                dim = key_dim if which == 0 else value_dim
                for head in range(heads):
                    place = ((slot * heads + head) * length + end - count) * dim * width
                    kept = carray(at(bases[pool, which] + place), (count * dim,), stored)
                    for j in range(count):
                        new = carray(at(source + ((first + j) * of_token + head * of_head) * width), (dim,), stored)
                        for d in range(dim):
                            kept[j * dim + d] = new[d]

    return keep
