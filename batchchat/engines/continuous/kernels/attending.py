"""Attention of rows over their slots, as what one thread does of it: see `code`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, float32, int64

from batchchat.engines.continuous.kernels.code import Code, at, float_of, narrow, power, thread, threads, wide
from batchchat.engines.continuous.kernels.vectors import LANES, add_weighted, dots, fetch, has_pairs, highest


def attention(key_dim: int, value_dim: int, stored: type, width: int) -> Code:
    """Attention of rows over their slots, for heads of these sizes, which are multiples of 16. `width`: bytes of a
    stored number.

    One item of work is a row with one key head: a few tokens of a sequence, which see those before. Each key is read
    once for all queries of the row, 16 at a time. No item depends on another, so a row's numbers do not depend on what
    else is computed.
    """
    in_pairs = width == 2 and key_dim % (2 * LANES) == 0 and has_pairs()
    ahead = LANES * max(key_dim, value_dim) * width

    def attend(parameters: Any) -> None:
        given = carray(parameters, (15,), np.int64)
        rows, heads = given[0], given[1]
        query, query_token, query_head = given[2], given[3], given[4]
        out, out_token = given[5], given[6]
        scaling, window, sinks, shared = float_of(given[7]), given[8], given[11], given[12]
        plan = carray(at(given[9]), (rows, 6), np.int64)
        bases = carray(at(given[10]), (1 << 16, 2), np.int64)
        sixteen = np.zeros(LANES * max(key_dim, value_dim), np.float32)
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
            for j in range(count):
                for g in range(shared):
                    own = carray(
                        at(query + ((first + j) * query_token + (head * shared + g) * query_head) * width),
                        (key_dim,),
                        stored,
                    )
                    for d in range(key_dim):
                        queries[(j * shared + g) * key_dim + d] = wide(own[d])
                        paired[(j * shared + g) * key_dim + d] = own[d]
            begin = max(0, end - count + 1 - window)
            blocks = (end - begin + LANES - 1) // LANES
            scores = np.empty((num, blocks * LANES), np.float32)
            for block in range(blocks):
                start = begin + block * LANES
                beyond = int64(keys.ctypes.data) + (start + LANES) * key_dim * width
                for line in range(0, ahead, 64):
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
                        dots(int64(paired.ctypes.data) + n * key_dim * width, place, target, key_dim, in_pairs)
                else:
                    for d in range(have):
                        sixteen[d] = wide(keys[start * key_dim + d])
                    for n in range(num):
                        target = int64(scores.ctypes.data) + (n * blocks + block) * LANES * 4
                        dots(
                            int64(queries.ctypes.data) + n * key_dim * 4,
                            int64(sixteen.ctypes.data),
                            target,
                            key_dim,
                            in_pairs,
                        )
            for line in range(0, ahead, 64):
                fetch(int64(values.ctypes.data) + begin * value_dim * width + line)
            for n in range(num):
                seen = end - count + n // shared + 1
                low, high = max(0, seen - window) - begin, seen - begin
                scores[n, :low] = float32(-np.inf)
                scores[n, high:] = float32(-np.inf)
                top = highest(int64(scores.ctypes.data) + n * blocks * LANES * 4, blocks) * scaling
                total, nothing = float32(0.0), float32(0.0)
                if sinks != 0:
                    sink = wide(carray(at(sinks), (heads * shared,), stored)[head * shared + n % shared])
                    top = max(top, sink)
                    total = power(sink - top)
                part = scores[n, low:high]
                for s in range(high - low):
                    nothing += part[s] * float32(0.0)
                    weight = power(part[s] * scaling - top)
                    part[s] = weight
                    total += weight
                over = float32(1.0) / total + nothing  # a score was no number: neither is what comes of it
                for s in range(high - low):
                    part[s] *= over
                scores[n, :low] = float32(0.0)
                scores[n, high:] = float32(0.0)
            sums = np.zeros(num * value_dim, np.float32)
            for block in range(blocks):
                start = begin + block * LANES
                beyond = int64(values.ctypes.data) + (start + LANES) * value_dim * width
                for line in range(0, ahead, 64):
                    fetch(beyond + line)
                have = min(LANES, end - start) * value_dim
                for d in range(have):
                    sixteen[d] = wide(values[start * value_dim + d])
                for d in range(have, LANES * value_dim):
                    sixteen[d] = float32(0.0)
                for n in range(num):
                    add_weighted(
                        int64(sums.ctypes.data) + n * value_dim * 4,
                        int64(scores.ctypes.data) + (n * blocks + block) * LANES * 4,
                        int64(sixteen.ctypes.data),
                        value_dim,
                    )
            for n in range(num):
                written = carray(
                    at(out + ((first + n // shared) * out_token + (head * shared + n % shared) * value_dim) * width),
                    (value_dim,),
                    stored,
                )
                for d in range(value_dim):
                    written[d] = narrow(sums[n * value_dim + d], written[d])

    return attend


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


def attention_of_any(stored: type, width: int) -> Code:
    """The same for heads of any sizes."""

    def attend(parameters: Any) -> None:
        given = carray(parameters, (15,), np.int64)
        rows, heads = given[0], given[1]
        query, query_token, query_head = given[2], given[3], given[4]
        out, out_token = given[5], given[6]
        scaling, window, sinks = float_of(given[7]), given[8], given[11]
        shared, key_dim, value_dim = given[12], given[13], given[14]
        plan = carray(at(given[9]), (rows, 6), np.int64)
        bases = carray(at(given[10]), (1 << 16, 2), np.int64)
        for item in range(thread(), rows * heads, threads()):
            row, head = item // heads, item % heads
            first, count, slot, length, end, pool = plan[row]
            place = (slot * heads + head) * length * width
            keys = carray(at(bases[pool, 0] + place * key_dim), (end, key_dim), stored)
            values = carray(at(bases[pool, 1] + place * value_dim), (end, value_dim), stored)
            queries = np.empty((count * shared, key_dim), np.float32)
            for j in range(count):
                for g in range(shared):
                    own = carray(
                        at(query + ((first + j) * query_token + (head * shared + g) * query_head) * width),
                        (key_dim,),
                        stored,
                    )
                    for d in range(key_dim):
                        queries[j * shared + g, d] = wide(own[d]) * scaling
            begin = max(0, end - count + 1 - window)
            scores = np.empty((count * shared, end - begin), np.float32)
            one = np.empty(max(key_dim, value_dim), np.float32)
            for s in range(end - begin):
                for d in range(key_dim):
                    one[d] = wide(keys[begin + s, d])
                for n in range(count * shared):
                    score = float32(0.0)
                    for d in range(key_dim):
                        score += queries[n, d] * one[d]
                    scores[n, s] = score
            for n in range(count * shared):
                seen = end - count + n // shared + 1
                low, high = max(0, seen - window) - begin, seen - begin
                top = float32(-np.inf)
                if sinks != 0:
                    top = wide(carray(at(sinks), (heads * shared,), stored)[head * shared + n % shared])
                sink = top
                for s in range(low, high):
                    if scores[n, s] > top or scores[n, s] != scores[n, s]:
                        top = scores[n, s]
                total = float32(0.0)
                if sinks != 0:
                    total = power(sink - top)
                scores[n, :low] = float32(0.0)
                scores[n, high:] = float32(0.0)
                part = scores[n, low:high]
                for s in range(high - low):
                    weight = power(part[s] - top)
                    part[s] = weight
                    total += weight
                if top != top:  # a score was no number: neither is what comes of it
                    total = top
                over = float32(1.0) / total
                for s in range(high - low):
                    part[s] *= over
            sums = np.zeros((count * shared, value_dim), np.float32)
            for s in range(end - begin):
                for d in range(value_dim):
                    one[d] = wide(values[begin + s, d])
                for n in range(count * shared):
                    weight = scores[n, s]
                    for d in range(value_dim):
                        sums[n, d] += weight * one[d]
            for j in range(count):
                for g in range(shared):
                    written = carray(
                        at(out + ((first + j) * out_token + (head * shared + g) * value_dim) * width),
                        (value_dim,),
                        stored,
                    )
                    for d in range(value_dim):
                        written[d] = narrow(sums[j * shared + g, d], written[d])

    return attend
