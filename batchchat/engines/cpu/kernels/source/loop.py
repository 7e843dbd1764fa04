"""The loop that runs a table of operations: see `kernels.loop`."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.abi import ALONE, BLOCK, PAIRS, PRODUCT, RESULT, SHARED, WORDS
from batchchat.engines.cpu.kernels.source.code import Code, at

_word = types.int64


def _external(name: str, *parameters: Any, result: Any = types.int32) -> Any:
    return types.ExternalFunction(f"batchchat_{name}", result(*parameters))


_parallel = _external("parallel", _word, _word, types.uint32, types.uint32, result=types.void)
_product = _external("product", *[_word] * 8)
_place = _external("place", _word, _word)
_free = _external("free", _word)


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


def loop() -> Code:
    """Rows `[first, last)` of the table at an address. The last parameter becomes the error of the first product that
    failed, or stays 0."""

    def run(parameters: Any) -> None:
        given = carray(parameters, (7,), np.int64)
        table, first, last, threads, none, algorithm = given[0], given[1], given[2], given[3], given[4], given[5]
        for number in range(first, last):
            row = table + number * WORDS * 8
            op = carray(at(row), (WORDS,), np.int64)
            if op[0] == ALONE:
                _call(op[1], row + BLOCK * 8)
            elif op[0] == SHARED:
                _parallel(op[1], row + BLOCK * 8, threads, 0)
            elif op[0] == PRODUCT:
                error = _product(op[1], op[2], op[3], none, 0, 0, algorithm, row + RESULT * 8)
                if error != 0:
                    given[6] = error
                    return
                _place(op[RESULT], row + (RESULT + 1) * 8)
                pair = PAIRS
                while op[pair] != 0:
                    carray(at(op[pair]), (1,), np.int64)[0] = op[RESULT + 1] + op[pair + 1]
                    pair += 2
            else:
                _free(carray(at(op[1]), (1,), np.int64)[0])

    return run
