"""Attention of rows over their slots, as what one thread does of it: see `code`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, float32, int64, njit

from batchchat.engines.cpu.kernels.abi import ATTENTION, BASES, PLAN, WRITE_KV
from batchchat.engines.cpu.kernels.processor import has_pairs
from batchchat.engines.cpu.kernels.source.code import (
    OPTIONS,
    Code,
    allocate,
    at,
    float_of,
    narrow,
    power,
    release,
    take,
    wide,
)
from batchchat.engines.cpu.kernels.source.vectors import LANES, add_weighted, dots, fetch, highest


def attention(stored: type, width: int, sizes: tuple[int, int] | None) -> Code:
    """Attention of rows over their slots. `width`: bytes of a stored number. `sizes`: of the keys and values that it is
    compiled for, multiples of 16; without them it is for heads of any sizes, by loops instead of vectors.

    One item of work is a row with one key head: a few tokens of a sequence, which see those before. Each key is read
    once for all queries of the row, 16 at a time. No item depends on another, so a row's numbers do not depend on what
    else is computed.
    """
    fixed = sizes is not None
    key_size, value_size = sizes or (LANES, LANES)
    in_pairs = fixed and stored is np.uint16 and key_size % (2 * LANES) == 0 and has_pairs()

    layout, plan_layout, bases_layout = ATTENTION, PLAN, BASES

    def attend(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, heads, shared, window = given.rows, given.heads, given.shared, given.window
        key_dim, value_dim = given.key_dim, given.value_dim
        if fixed:
            key_dim, value_dim = key_size, value_size
        plan = carray(at(given.plan), (rows,), plan_layout)
        bases = carray(at(given.bases), (1 << 16,), bases_layout)
        most, longest = 0, 0
        for number in range(rows):
            row = plan[number]
            most = max(most, row.count * shared)
            longest = max(longest, row.end - max(0, row.end - row.count + 1 - window))
        longest = (longest + LANES - 1) // LANES * LANES
        place_16 = allocate(LANES * max(key_dim, value_dim) * 4)
        place_few = allocate(LANES * key_dim * width)
        place_queries, place_paired = allocate(most * key_dim * 4), allocate(most * key_dim * width)
        place_scores, place_sums = allocate(most * longest * 4), allocate(most * value_dim * 4)
        sixteen = carray(at(place_16), (LANES * max(key_dim, value_dim),), np.float32)
        few = carray(at(place_few), (LANES * key_dim,), stored)
        sixteen[:] = float32(0.0)
        few[:] = 0
        turn, item = take(parameters, 0, rows * heads)
        while item >= 0:
            row, head = plan[item // heads], item % heads
            end, num = row.end, row.count * shared
            place = (row.row * heads + head) * row.length * width
            keys = carray(at(bases[row.pool].keys + place * key_dim), (end * key_dim,), stored)
            values = carray(at(bases[row.pool].values + place * value_dim), (end * value_dim,), stored)
            queries = carray(at(place_queries), (num * key_dim,), np.float32)
            paired = carray(at(place_paired), (num * key_dim,), stored)
            for n in range(num):
                token, own = row.first + n // shared, head * shared + n % shared
                beyond = (token * given.query_token + own * given.query_head) * width
                numbers = carray(at(given.query + beyond), (key_dim,), stored)
                for d in range(key_dim):
                    queries[n * key_dim + d] = wide(numbers[d])
                    paired[n * key_dim + d] = numbers[d]
            begin = max(0, end - row.count + 1 - window)
            blocks = (end - begin + LANES - 1) // LANES
            scores = carray(at(place_scores), (num, blocks * LANES), np.float32)
            for block in range(blocks):
                start = begin + block * LANES
                fetch_block(int64(keys.ctypes.data) + (start + LANES) * key_dim * width, len(sixteen) * width)
                have, column = min(LANES, end - start), block * LANES
                if in_pairs:
                    score_pairs(scores, column, paired, keys, start, have, few, width, key_size, in_pairs)
                elif fixed:
                    score_vectors(scores, column, queries, keys, start, have, sixteen, key_size, in_pairs)
                else:
                    score_numbers(scores, column, queries, keys, start, have, sixteen, key_dim)
            fetch_block(int64(values.ctypes.data) + begin * value_dim * width, len(sixteen) * width)
            for n in range(num):
                seen = end - row.count + n // shared + 1
                sink = float32(0.0)
                if given.sinks != 0:
                    sink = wide(carray(at(given.sinks), (heads * shared,), stored)[head * shared + n % shared])
                low, high = max(0, seen - window) - begin, seen - begin
                scaling = float_of(given.scaling)
                if given.softcap != 0:
                    cap_scores(scores[n, low:high], scaling, float_of(given.softcap))
                    scaling = float32(1.0)
                into_shares(scores[n], low, high, scaling, given.sinks != 0, sink)
            sums = carray(at(place_sums), (num * value_dim,), np.float32)
            sums[:] = float32(0.0)
            for block in range(blocks):
                start = begin + block * LANES
                fetch_block(int64(values.ctypes.data) + (start + LANES) * value_dim * width, len(sixteen) * width)
                spread_values(sixteen, values, start, min(LANES, end - start), value_dim)
                if fixed:
                    add_vectors(sums, scores, block * LANES, sixteen, value_size)
                else:
                    add_numbers(sums, scores, block * LANES, sixteen, value_dim)
            for n in range(num):
                token, own = row.first + n // shared, head * shared + n % shared
                beyond = (token * given.out_token + own * value_dim) * width
                written = carray(at(given.out + beyond), (value_dim,), stored)
                for d in range(value_dim):
                    written[d] = narrow(sums[n * value_dim + d], written[d])
            turn, item = take(parameters, turn, rows * heads)
        for taken in (place_16, place_few, place_queries, place_paired, place_scores, place_sums):
            release(taken)

    return attend


@njit(inline="always", **OPTIONS)
def fetch_block(address: Any, size: Any) -> None:
    """Have the numbers of the next block brought nearer, `size` bytes."""
    for line in range(0, size, 64):
        fetch(address + line)


@njit(inline="always", **OPTIONS)
def score_pairs(
    scores: Any, column: Any, paired: Any, keys: Any, start: Any, have: Any, few: Any, width: Any, dim: Any, pairs: Any
) -> None:
    """Scores of up to 16 keys from `start` on, by an instruction that multiplies pairs of numbers in bfloat16."""
    place = int64(keys.ctypes.data) + start * dim * width
    if have < LANES:  # it reads 16 whatever there is
        for d in range(have * dim):
            few[d] = keys[start * dim + d]
        place = int64(few.ctypes.data)
    for n in range(len(scores)):
        target = int64(scores.ctypes.data) + (n * scores.shape[1] + column) * 4
        dots(int64(paired.ctypes.data) + n * dim * width, place, target, dim, pairs)


@njit(inline="always", **OPTIONS)
def score_vectors(
    scores: Any, column: Any, queries: Any, keys: Any, start: Any, have: Any, sixteen: Any, dim: Any, pairs: Any
) -> None:
    """The same in single precision, by vectors of 16."""
    for d in range(have * dim):
        sixteen[d] = wide(keys[start * dim + d])
    for n in range(len(scores)):
        target = int64(scores.ctypes.data) + (n * scores.shape[1] + column) * 4
        dots(int64(queries.ctypes.data) + n * dim * 4, int64(sixteen.ctypes.data), target, dim, pairs)


@njit(inline="always", **OPTIONS)
def score_numbers(
    scores: Any, column: Any, queries: Any, keys: Any, start: Any, have: Any, sixteen: Any, dim: Any
) -> None:
    """The same for heads of any size."""
    for d in range(have * dim):
        sixteen[d] = wide(keys[start * dim + d])
    for n in range(len(scores)):
        for s in range(LANES):
            score = float32(0.0)
            for d in range(dim):
                score += queries[n * dim + d] * sixteen[s * dim + d]
            scores[n, column + s] = score


@njit(inline="always", **OPTIONS)
def spread_values(sixteen: Any, values: Any, start: Any, have: Any, dim: Any) -> None:
    """16 values from `start` on in single precision; those that there are not are 0."""
    for d in range(have * dim):
        sixteen[d] = wide(values[start * dim + d])
    for d in range(have * dim, LANES * dim):
        sixteen[d] = float32(0.0)


@njit(inline="always", **OPTIONS)
def add_vectors(sums: Any, scores: Any, column: Any, sixteen: Any, dim: Any) -> None:
    """Add 16 values to each query's sum by their shares."""
    for n in range(len(scores)):
        total = int64(sums.ctypes.data) + n * dim * 4
        shares = int64(scores.ctypes.data) + (n * scores.shape[1] + column) * 4
        add_weighted(total, shares, int64(sixteen.ctypes.data), dim)


@njit(inline="always", **OPTIONS)
def add_numbers(sums: Any, scores: Any, column: Any, sixteen: Any, dim: Any) -> None:
    """The same for heads of any size."""
    for n in range(len(scores)):
        for s in range(LANES):
            share = scores[n, column + s]
            for d in range(dim):
                sums[n * dim + d] += share * sixteen[s * dim + d]


@njit(inline="always", **OPTIONS)
def cap_scores(scores: Any, scaling: Any, cap: Any) -> None:
    """Scores, in place, as `cap * tanh(score * scaling / cap)`; what is no number stays so."""
    for s in range(len(scores)):
        x = scores[s] * (scaling / cap)
        small = power(float32(-2.0) * abs(x))
        size = cap * (float32(1.0) - small) / (float32(1.0) + small) + x * float32(0.0)
        scores[s] = size if x >= float32(0.0) else -size


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


def writing(stored: type, width: int) -> Code:
    """Writes the new keys and values of rows into their slots."""
    layout, plan_layout, bases_layout = WRITE_KV, PLAN, BASES

    def write(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        rows, heads = given.rows, given.heads
        plan = carray(at(given.plan), (rows,), plan_layout)
        bases = carray(at(given.bases), (1 << 16,), bases_layout)
        turn, number = take(parameters, 0, rows)
        while number >= 0:
            row = plan[number]
            for head in range(heads):
                place = ((row.row * heads + head) * row.length + row.end - row.count) * width
                for j in range(row.count):
                    token, dim = row.first + j, given.key_dim
                    beyond = (token * given.key_token + head * given.key_head) * width
                    new = carray(at(given.key + beyond), (dim,), stored)
                    kept = carray(at(bases[row.pool].keys + (place + j * width) * dim), (dim,), stored)
                    for d in range(dim):
                        kept[d] = new[d]
                    dim = given.value_dim
                    beyond = (token * given.value_token + head * given.value_head) * width
                    new = carray(at(given.value + beyond), (dim,), stored)
                    kept = carray(at(bases[row.pool].values + (place + j * width) * dim), (dim,), stored)
                    for d in range(dim):
                        kept[d] = new[d]
            turn, number = take(parameters, turn, rows)

    return write
