"""The loop that runs a table of operations: see `kernels.loop`.

A team of threads goes through all kernels that follow each other, so that they need not be called together for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, int64, njit, types
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import BLOCK, CURSOR, PAIRS, PRODUCT, RESULT, SHARED, TABLE, WORDS
from batchchat.engines.cpu.kernels.source.code import OPTIONS, Code, at

_word = types.int64


def _external(name: str, *parameters: Any, result: Any = types.int32) -> Any:
    return types.ExternalFunction(f"batchchat_{name}", result(*parameters))


_parallel = _external("parallel", _word, _word, types.uint32, types.uint32, result=types.void)
_product = _external("product", *[_word] * 8)
_place = _external("place", _word, _word)
_free = _external("free", _word)
_give_way = types.ExternalFunction("sched_yield", types.int32())

_CLOSED, _READY = 1 << 32, 1 << 33
"""Of an operation's state, whose lower half counts the threads in it: no piece is left; what comes next can begin."""
_LOOKS = 1000
"""How often a thread looks for the end of an operation before it gives its core away."""


@intrinsic
def _call(_: Any, address: Any, block: Any) -> Any:
    """Call the kernel at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        kernel = ir.FunctionType(ir.VoidType(), [word.as_pointer()])
        function = builder.inttoptr(arguments[0], kernel.as_pointer())
        builder.call(function, [builder.inttoptr(arguments[1], word.as_pointer())])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def _change(_: Any, how: Any, address: Any, by: Any) -> Any:
    """What stood at an address, and is changed there in the same step: `how` is `add` or `or`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[1], ir.IntType(64).as_pointer())
        return builder.atomic_rmw(how.literal_value, place, arguments[2], "seq_cst")

    return types.int64(how, types.int64, types.int64), generate


@intrinsic
def _look(_: Any, address: Any) -> Any:
    """What stands at an address now, and before it all that other threads did before they changed it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        return builder.load_atomic(place, "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def _rest(_: Any) -> Any:
    """Tell the processor that this thread waits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if "x86" in builder.module.triple:
            builder.asm(ir.FunctionType(ir.VoidType(), []), "pause", "", [], True)
        return context.get_dummy_value()

    return types.void(), generate


@njit(inline="always", **OPTIONS)
def _wait(state: Any) -> None:
    """Until an operation is done."""
    looks = 0
    while _look(state) != _CLOSED | _READY:
        looks += 1
        if looks < _LOOKS:
            _rest()
        else:  # who has a piece still may need this core
            _give_way()


def team() -> Code:
    """Rows of the table that are kernels, one after the other, as what one thread of a team does of them.

    An operation is done when its pieces are, whoever took them: a thread that comes late is not waited for, and finds
    its place in the table by what is closed. Who finds first that no piece is left closes it and clears the cursors of
    the next one; two sets take turns.
    """

    def run(parameters: Any) -> None:
        given = carray(parameters, (1,), TABLE)[0]
        for number in range(given.begin, given.end):
            row, state = given.table + number * WORDS * 8, given.states + number * 8
            if _look(state) & _CLOSED == 0:
                if _change("add", state, 1) & _CLOSED == 0:
                    kernel = carray(at(row), (2,), np.int64)[1]
                    _call(kernel, row + BLOCK * 8)
                    if _change("or", state, _CLOSED) & _CLOSED == 0:
                        clear(given.cursors, number + 1, given.threads)
                        _change("or", state, _READY)
                _change("add", state, -1)
            _wait(state)

    return run


@njit(inline="always", **OPTIONS)
def clear(cursors: Any, number: Any, threads: Any) -> None:
    """Those of an operation."""
    size = threads * CURSOR
    carray(at(cursors + (number & 1) * size * 8), (size,), np.int64)[:] = 0


@njit(inline="always", **OPTIONS)
def kind_of(table: Any, number: Any) -> Any:
    return carray(at(table + number * WORDS * 8), (1,), np.int64)[0]


@njit(inline="always", **OPTIONS)
def run_kernels(parameters: Any, first: Any, last: Any, shared: Any) -> None:
    """Rows that are kernels: by a team where there is one and it is worth calling."""
    block = carray(parameters, (1,), TABLE)
    given = block[0]
    cursors, threads = given.cursors, given.threads
    for number in range(first, last):
        op = carray(at(given.table + number * WORDS * 8), (WORDS,), np.int64)
        op[BLOCK - 1] = cursors + (number & 1) * threads * CURSOR * 8
    if shared and threads > 1:
        clear(cursors, first, threads)
        block[0].begin, block[0].end = first, last
        _parallel(given.team, int64(block.ctypes.data), threads, 0)
    else:
        for number in range(first, last):
            clear(cursors, number, threads)
            row = given.table + number * WORDS * 8
            _call(carray(at(row), (2,), np.int64)[1], row + BLOCK * 8)


def loop() -> Code:
    """Rows `[first, last)` of the table. `error` becomes that of the first product that failed, or stays 0."""

    def run(parameters: Any) -> None:
        given = carray(parameters, (1,), TABLE)[0]
        table, number = given.table, given.first
        while number < given.last:
            row = table + number * WORDS * 8
            op = carray(at(row), (WORDS,), np.int64)
            if op[0] <= SHARED:
                end, shared = number, False
                while end < given.last and kind_of(table, end) <= SHARED:
                    shared = shared or kind_of(table, end) == SHARED
                    end += 1
                run_kernels(parameters, number, end, shared)
                number = end
                continue
            if op[0] == PRODUCT:
                error = _product(op[1], op[2], op[3], given.none, 0, 0, given.algorithm, row + RESULT * 8)
                if error != 0:
                    carray(parameters, (1,), TABLE)[0].error = error
                    return
                _place(op[RESULT], row + (RESULT + 1) * 8)
                pair = PAIRS
                while op[pair] != 0:
                    carray(at(op[pair]), (1,), np.int64)[0] = op[RESULT + 1] + op[pair + 1]
                    pair += 2
            else:
                _free(carray(at(op[1]), (1,), np.int64)[0])
            number += 1

    return run
