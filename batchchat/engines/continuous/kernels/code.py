"""What is compiled: functions of a block of 64-bit parameters, each of which does one thread's share of the work.

Everything compiled stands in this file, since the compiled code is kept until this file changes. Addresses are given as
integers and floats as their bits. Arithmetic is in single precision; bfloat16 numbers are seen as their 16 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, float32, int32, njit, types, uint32
from numba.core import cgutils
from numba.extending import intrinsic

OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
"""What the arithmetic may assume. Numbers that are not finite keep their meaning: a row's NaN must show."""

THREAD, THREADS = "batchchat_thread_number", "batchchat_thread_count"
"""Names under which the functions of the OpenMP runtime are known to the compiled code."""

FORMS = ROUND_FIRST, ROUND_LAST, ONE_MORE = range(3)
"""How a norm scales: its rounded numbers by the weight, its exact ones, or those by the weight and one."""

Code = Callable[[Any], None]

_thread = types.ExternalFunction(THREAD, types.int32())
_threads = types.ExternalFunction(THREADS, types.int32())


@intrinsic
def _at(_: Any, address: Any) -> Any:
    """A pointer of an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def _float_of(_: Any, bits: Any) -> Any:
    """The number that the low 32 bits of an integer are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        if value.type.width > 32:
            value = builder.trunc(value, ir.IntType(32))
        return builder.bitcast(value, ir.FloatType())

    return types.float32(bits), generate


@intrinsic
def _wide(_: Any, stored: Any) -> Any:
    """A number as it is computed with, from how it is stored."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        if stored == types.float32:
            return value
        shifted = builder.shl(builder.zext(value, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(shifted, ir.FloatType())

    return types.float32(stored), generate


@intrinsic
def _narrow(_: Any, value: Any, like: Any) -> Any:
    """A number as it is stored, in the type of `like`: to bfloat16 it is rounded to the nearest, ties to even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if like == types.float32:
            return arguments[0]
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        sixteen = ir.Constant(word, 16)
        odd = builder.and_(builder.lshr(bits, sixteen), ir.Constant(word, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF)))
        return builder.trunc(builder.lshr(rounded, sixteen), ir.IntType(16))

    return like(types.float32, like), generate


@njit(inline="always", **OPTIONS)
def _power(x: Any) -> Any:
    """e to the power of `x`, which is at most 0, to single precision; in a form that compilers vectorize."""
    twos = max(x, float32(-87.0)) * float32(1.4426950408889634)
    whole = int32(twos - float32(0.5))  # the nearest, since it is negative and the cast cuts off
    part = twos - float32(whole)
    value = float32(1.535336188319500e-4)
    value = value * part + float32(1.339887440266574e-3)
    value = value * part + float32(9.618437357674640e-3)
    value = value * part + float32(5.550332471162809e-2)
    value = value * part + float32(2.402264791363012e-1)
    value = value * part + float32(6.931472028550421e-1)
    value = value * part + float32(1.0)
    return value * _float_of(uint32(whole + int32(127)) << uint32(23))


def attention(fixed_key_dim: int, fixed_value_dim: int, stored: type, width: int) -> Code:
    """Attention of rows over their slots, for heads of these sizes, or of any where they are 0. `width`: bytes of a
    stored number.

    One item of work is a row with one key head. Its new keys and values are written first, then each key is read once
    for all queries of the row. No item depends on another, so a row's numbers do not depend on what else is computed.
    """

    def attend(parameters: Any) -> None:
        given = carray(parameters, (21,), np.int64)
        rows, heads = given[0], given[1]
        query, query_token, query_head = given[2], given[3], given[4]
        key, key_token, key_head = given[5], given[6], given[7]
        value, value_token, value_head = given[8], given[9], given[10]
        out, out_token = given[11], given[12]
        scaling, window, sinks = _float_of(given[13]), given[14], given[17]
        shared, key_dim, value_dim = given[18], given[19], given[20]
        if fixed_key_dim:
            key_dim, value_dim = fixed_key_dim, fixed_value_dim
        plan = carray(_at(given[15]), (rows, 6), np.int64)
        bases = carray(_at(given[16]), (1 << 16, 2), np.int64)
        for item in range(_thread(), rows * heads, _threads()):
            row, head = item // heads, item % heads
            first, count, slot, length, end, pool = plan[row]
            place = (slot * heads + head) * length * width
            keys = carray(_at(bases[pool, 0] + place * key_dim), (end, key_dim), stored)
            values = carray(_at(bases[pool, 1] + place * value_dim), (end, value_dim), stored)
            for j in range(count):
                new = carray(_at(key + ((first + j) * key_token + head * key_head) * width), (key_dim,), stored)
                for d in range(key_dim):
                    keys[end - count + j, d] = new[d]
                other = carray(
                    _at(value + ((first + j) * value_token + head * value_head) * width), (value_dim,), stored
                )
                for d in range(value_dim):
                    values[end - count + j, d] = other[d]
            queries = np.empty((count * shared, key_dim), np.float32)
            for j in range(count):
                for g in range(shared):
                    own = carray(
                        _at(query + ((first + j) * query_token + (head * shared + g) * query_head) * width),
                        (key_dim,),
                        stored,
                    )
                    for d in range(key_dim):
                        queries[j * shared + g, d] = _wide(own[d]) * scaling
            begin = max(0, end - count + 1 - window)
            scores = np.empty((count * shared, end - begin), np.float32)
            one = np.empty(max(key_dim, value_dim), np.float32)
            for s in range(end - begin):
                if count == 1:
                    for g in range(shared):
                        score = float32(0.0)
                        for d in range(key_dim):
                            score += queries[g, d] * _wide(keys[begin + s, d])
                        scores[g, s] = score
                else:
                    for d in range(key_dim):
                        one[d] = _wide(keys[begin + s, d])
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
                    top = _wide(carray(_at(sinks), (heads * shared,), stored)[head * shared + n % shared])
                sink = top
                for s in range(low, high):
                    if scores[n, s] > top or scores[n, s] != scores[n, s]:
                        top = scores[n, s]
                total = float32(0.0)
                if sinks != 0:
                    total = _power(sink - top)
                scores[n, :low] = float32(0.0)
                scores[n, high:] = float32(0.0)
                part = scores[n, low:high]
                for s in range(high - low):
                    weight = _power(part[s] - top)
                    part[s] = weight
                    total += weight
                if top != top:  # a score was no number: neither is what comes of it
                    total = top
                over = float32(1.0) / total
                for s in range(high - low):
                    part[s] *= over
            sums = np.zeros((count * shared, value_dim), np.float32)
            for s in range(end - begin):
                if count == 1:
                    for g in range(shared):
                        weight = scores[g, s]
                        for d in range(value_dim):
                            sums[g, d] += weight * _wide(values[begin + s, d])
                else:
                    for d in range(value_dim):
                        one[d] = _wide(values[begin + s, d])
                    for n in range(count * shared):
                        weight = scores[n, s]
                        for d in range(value_dim):
                            sums[n, d] += weight * one[d]
            for j in range(count):
                for g in range(shared):
                    written = carray(
                        _at(out + ((first + j) * out_token + (head * shared + g) * value_dim) * width),
                        (value_dim,),
                        stored,
                    )
                    for d in range(value_dim):
                        written[d] = _narrow(sums[j * shared + g, d], written[d])

    return attend


def norm(stored: type, width: int, form: int) -> Code:
    """Root-mean-square norm of rows, in one of the three forms; with something to add first, which stays added. Rows lie
    in groups of `together`."""

    def norm(parameters: Any) -> None:
        given = carray(parameters, (10,), np.int64)
        rows, size, stride, epsilon = given[0], given[1], given[3], _float_of(given[6])
        added, together, of_group = given[7], given[8], given[9]
        weight = carray(_at(given[4]), (size,), stored)
        for row in range(_thread(), rows, _threads()):
            place = given[2] + ((row // together) * of_group + (row % together) * stride) * width
            numbers = carray(_at(place), (size,), stored)
            out = carray(_at(given[5] + row * size * width), (size,), stored)
            if added != 0:
                more = carray(_at(added + row * size * width), (size,), stored)
                for d in range(size):
                    numbers[d] = _narrow(_wide(numbers[d]) + _wide(more[d]), out[d])
            squares = float32(0.0)
            for d in range(size):
                squares += _wide(numbers[d]) * _wide(numbers[d])
            scale = float32(1.0) / math.sqrt(squares / float32(size) + epsilon)
            for d in range(size):
                exact = _wide(numbers[d]) * scale
                if form == ROUND_FIRST:
                    exact = _wide(_narrow(exact, out[d])) * _wide(weight[d])
                elif form == ROUND_LAST:
                    exact = exact * _wide(weight[d])
                else:
                    exact = exact * (float32(1.0) + _wide(weight[d]))
                out[d] = _narrow(exact, out[d])

    return norm


def gate(stored: type, width: int) -> Code:
    """SiLU of one half of each row, rounded, times its other half."""

    def gate(parameters: Any) -> None:
        given = carray(parameters, (4,), np.int64)
        rows, size = given[0], given[1]
        for row in range(_thread(), rows, _threads()):
            gates = carray(_at(given[2] + 2 * row * size * width), (size,), stored)
            others = carray(_at(given[2] + (2 * row + 1) * size * width), (size,), stored)
            out = carray(_at(given[3] + row * size * width), (size,), stored)
            for d in range(size):
                x = _wide(gates[d])
                small = _power(-abs(x))
                share = (float32(1.0) if x >= float32(0.0) else small) / (float32(1.0) + small)
                out[d] = _narrow(_wide(_narrow(x * share, out[d])) * _wide(others[d]), out[d])

    return gate


def rotary(stored: type, width: int) -> Code:
    """Rotary position embedding of query and key heads, by halves, each product and their sum rounded. Heads of values
    are copied."""

    def rotate(parameters: Any) -> None:
        given = carray(parameters, (21,), np.int64)
        tokens, half = given[0], given[1]
        for token in range(_thread(), tokens, _threads()):
            cosines = carray(_at(given[2] + token * given[4] * width), (2 * half,), stored)
            sines = carray(_at(given[3] + token * given[4] * width), (2 * half,), stored)
            for which in range(2):
                heads, source, of_token, of_head, target = given[5 + 5 * which : 10 + 5 * which]
                for head in range(heads):
                    x = carray(_at(source + (token * of_token + head * of_head) * width), (2 * half,), stored)
                    out = carray(_at(target + (token * heads + head) * 2 * half * width), (2 * half,), stored)
                    for d in range(half):
                        one, other = _wide(x[d]), _wide(x[half + d])
                        straight = _wide(_narrow(one * _wide(cosines[d]), out[d]))
                        across = _wide(_narrow(-other * _wide(sines[d]), out[d]))
                        out[d] = _narrow(straight + across, out[d])
                        straight = _wide(_narrow(other * _wide(cosines[half + d]), out[d]))
                        across = _wide(_narrow(one * _wide(sines[half + d]), out[d]))
                        out[half + d] = _narrow(straight + across, out[d])
            heads, source, of_token, of_head, target, dim = given[15:21]
            for head in range(heads):
                x = carray(_at(source + (token * of_token + head * of_head) * width), (dim,), stored)
                out = carray(_at(target + (token * heads + head) * dim * width), (dim,), stored)
                for d in range(dim):
                    out[d] = x[d]

    return rotate
