"""Kernels are functions of a block of 64-bit parameters, each of which does one thread's share of the work.

Arithmetic is in single precision; bfloat16 numbers are seen as their 16 bits (uint16), and so are those of float16
(int16). A kernel takes memory by `allocate`: of numba's own, nothing is there when compiled code runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import carray, float32, int32, int64, njit, types, uint32
from numba.core import cgutils
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels import machine_code
from batchchat.engines.cpu.kernels.abi import ADD, CLAMPED, CURSOR, GATE, GELU, NORM, ROTARY, ROUND_FIRST, ROUND_LAST

OPTIONS: dict[str, Any] = {"fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
"""What the arithmetic may assume. Numbers that are not finite keep their meaning: a row's NaN must show."""

Code = Callable[[Any], None]

thread = types.ExternalFunction(machine_code.THREAD, types.int32())
threads = types.ExternalFunction(machine_code.THREADS, types.int32())
release = types.ExternalFunction("free", types.void(types.int64))
_aligned = types.ExternalFunction("aligned_alloc", types.int64(types.int64, types.int64))


@njit(inline="always")
def allocate(size: Any) -> Any:
    """The address of `size` bytes, until they are given to `release`."""
    return _aligned(64, (size + 63) // 64 * 64)


@intrinsic
def at(_: Any, address: Any) -> Any:
    """A pointer of an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), generate


@intrinsic
def _cursors(_: Any, parameters: Any) -> Any:
    """The word before a block of parameters."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        block = builder.bitcast(arguments[0], word.as_pointer())
        return builder.load(builder.gep(block, [ir.Constant(word, -1)]))

    return types.int64(parameters), generate


@intrinsic
def _count_on(_: Any, address: Any) -> Any:
    """What stood at an address, to which one is added in the same step."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        place = builder.inttoptr(arguments[0], word.as_pointer())
        return builder.atomic_rmw("add", place, ir.Constant(word, 1), "monotonic")

    return types.int64(types.int64), generate


@njit(inline="always", **OPTIONS)
def take(parameters: Any, turn: Any, count: Any) -> Any:
    """Whose turn it is, and the next of `count` pieces of work, or -1 where all are taken. A thread begins with turn 0,
    its own share; when that is done it helps those behind it, so that a late or slow one holds up little."""
    cursors, own, team = _cursors(parameters), int64(thread()), int64(threads())
    piece = int64(-1)
    while piece < 0 and turn < team:
        owner = (own + turn) % team
        place = owner * count // team + _count_on(cursors + 8 * CURSOR * owner)
        if place < (owner + 1) * count // team:
            piece = place
        else:
            turn += 1
    return turn, piece


@intrinsic
def float_of(_: Any, bits: Any) -> Any:
    """The number that the low 32 bits of an integer are."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        if value.type.width > 32:
            value = builder.trunc(value, ir.IntType(32))
        return builder.bitcast(value, ir.FloatType())

    return types.float32(bits), generate


@intrinsic
def wide(_: Any, stored: Any) -> Any:
    """A number as it is computed with, from how it is stored."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = arguments[0]
        if stored == types.float32:
            return value
        if stored == types.int16:
            return builder.fpext(builder.bitcast(value, ir.HalfType()), ir.FloatType())
        shifted = builder.shl(builder.zext(value, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(shifted, ir.FloatType())

    return types.float32(stored), generate


@intrinsic
def narrow(_: Any, value: Any, like: Any) -> Any:
    """A number as it is stored, in the type of `like`: to 16 bits it is rounded to the nearest, ties to even."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if like == types.float32:
            return arguments[0]
        if like == types.int16:
            return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))
        word = ir.IntType(32)
        bits = builder.bitcast(arguments[0], word)
        sixteen = ir.Constant(word, 16)
        odd = builder.and_(builder.lshr(bits, sixteen), ir.Constant(word, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF)))
        return builder.trunc(builder.lshr(rounded, sixteen), ir.IntType(16))

    return like(types.float32, like), generate


@njit(inline="always", **OPTIONS)
def power(x: Any) -> Any:
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
    return value * float_of(uint32(whole + int32(127)) << uint32(23))


@njit(inline="always", **OPTIONS)
def add_to(numbers: Any, more: Any, times: Any) -> None:
    """Multiply `more`, in place, and add it to `numbers`, each rounded: two loops, lest a compiler rounds once."""
    if times != float32(1.0):
        for d in range(len(more)):
            more[d] = narrow(wide(more[d]) * times, more[d])
    for d in range(len(more)):
        numbers[d] = narrow(wide(numbers[d]) + wide(more[d]), numbers[d])


def add(stored: type, width: int) -> Code:
    """Rows plus others."""
    layout = ADD

    def add(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        size = given.size
        turn, row = take(parameters, 0, given.rows)
        while row >= 0:
            numbers = carray(at(given.source + row * size * width), (size,), stored)
            more = carray(at(given.added + row * size * width), (size,), stored)
            add_to(numbers, more, float_of(given.times))
            turn, row = take(parameters, turn, given.rows)

    return add


def norm(stored: type, width: int, form: int) -> Code:
    """Root-mean-square norm of rows, in one of the three forms; with something to add first, which stays added."""
    layout = NORM

    def norm(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        size, epsilon = given.size, float_of(given.epsilon)
        weight = carray(at(given.weight), (size,), stored)
        turn, row = take(parameters, 0, given.rows)
        while row >= 0:
            beyond = (row // given.group) * given.group_stride + (row % given.group) * given.stride
            numbers = carray(at(given.source + beyond * width), (size,), stored)
            out = carray(at(given.target + row * size * width), (size,), stored)
            if given.added != 0:
                more = carray(at(given.added + row * size * width), (size,), stored)
                add_to(numbers, more, float_of(given.times))
            squares = float32(0.0)
            for d in range(size):
                squares += wide(numbers[d]) * wide(numbers[d])
            scale = float32(1.0) / math.sqrt(squares / float32(size) + epsilon)
            for d in range(size):
                exact = wide(numbers[d]) * scale
                if form == ROUND_FIRST:
                    exact = wide(narrow(exact, out[d])) * wide(weight[d])
                elif form == ROUND_LAST:
                    exact = exact * wide(weight[d])
                else:
                    exact = exact * (float32(1.0) + wide(weight[d]))
                out[d] = narrow(exact, out[d])
            turn, row = take(parameters, turn, given.rows)

    return norm


def gate(stored: type, width: int, form: int) -> Code:
    """One half of each row by its gate (see `GATES`), rounded, times its other half."""
    layout = GATE

    def gate(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        size, limit, alpha = given.size, float_of(given.limit), float_of(given.alpha)
        turn, row = take(parameters, 0, given.rows)
        while row >= 0:
            gates = carray(at(given.source + 2 * row * size * width), (size,), stored)
            others = carray(at(given.source + (2 * row + 1) * size * width), (size,), stored)
            out = carray(at(given.target + row * size * width), (size,), stored)
            for d in range(size):
                x, other = wide(gates[d]), wide(others[d])
                z = x
                if form == GELU:  # x * (1 + tanh(y)) / 2 is x * sigmoid(2y)
                    z = float32(2.0 * 0.7978845608028654) * (x + float32(0.044715) * x * x * x)
                if form == CLAMPED:
                    x = limit if x > limit else x
                    other = limit if other > limit else (-limit if other < -limit else other)
                    other = wide(narrow(other + float32(1.0), out[d]))
                    z = alpha * x
                small = power(-abs(z))
                share = (float32(1.0) if z >= float32(0.0) else small) / (float32(1.0) + small)
                out[d] = narrow(wide(narrow(x * share, out[d])) * other, out[d])
            turn, row = take(parameters, turn, given.rows)

    return gate


@njit(inline="always", **OPTIONS)
def rotate_head(x: Any, out: Any, cosines: Any, sines: Any, half: Any) -> None:
    """One head, by halves, each product and their sum rounded; with tables in a wider type the sum alone. What is
    behind the halves is copied."""
    for d in range(half):
        one, other = wide(x[d]), wide(x[half + d])
        straight = wide(narrow(one * wide(cosines[d]), cosines[d]))
        across = wide(narrow(-other * wide(sines[d]), cosines[d]))
        out[d] = narrow(straight + across, out[d])
        straight = wide(narrow(other * wide(cosines[half + d]), cosines[d]))
        across = wide(narrow(one * wide(sines[half + d]), cosines[d]))
        out[half + d] = narrow(straight + across, out[d])
    for d in range(2 * half, len(x)):
        out[d] = x[d]


def rotary(stored: type, width: int, in_tables: type, table_width: int) -> Code:
    """Rotary position embedding of query and key heads. Heads of values are copied."""
    layout = ROTARY

    def rotate(parameters: Any) -> None:
        given = carray(parameters, (1,), layout)[0]
        half, dim = given.half, given.dim
        turn, token = take(parameters, 0, given.tokens)
        while token >= 0:
            beyond = token * given.table_stride * table_width
            cosines = carray(at(given.cosines + beyond), (2 * half,), in_tables)
            sines = carray(at(given.sines + beyond), (2 * half,), in_tables)
            for head in range(given.query_heads):
                place = given.query + (token * given.query_token + head * given.query_head) * width
                target = given.query_target + (token * given.query_heads + head) * dim * width
                x, out = carray(at(place), (dim,), stored), carray(at(target), (dim,), stored)
                rotate_head(x, out, cosines, sines, half)
            for head in range(given.key_heads):
                place = given.key + (token * given.key_token + head * given.key_head) * width
                target = given.key_target + (token * given.key_heads + head) * dim * width
                x, out = carray(at(place), (dim,), stored), carray(at(target), (dim,), stored)
                rotate_head(x, out, cosines, sines, half)
            size = given.value_dim
            for head in range(given.value_heads):
                place = given.value + (token * given.value_token + head * given.value_head) * width
                target = given.value_target + (token * given.value_heads + head) * size * width
                x, out = carray(at(place), (size,), stored), carray(at(target), (size,), stored)
                for d in range(size):
                    out[d] = x[d]
            turn, token = take(parameters, turn, given.tokens)

    return rotate
