"""Runs a table of operations without coming back to Python: kernels on torch's team, and products with packed weights.

The products are called by the C functions that torch's compiler emits for ahead-of-time code. A table is int64
`[operations, WORDS]`, each row beginning with a kind:

- `ALONE`, `SHARED`: a kernel's address, then its block of parameters; run by this thread or by all of torch's.
- `PRODUCT`: handles of the input, of the packed weight and the address of the bias's handle (or 0), two words for the
  handle and the address of the result, then pairs: where in a table that address is wanted, and the bytes beyond it.
- `FREE`: the address of a result's handle.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from typing import Any

import llvmlite.binding
import numpy as np
import torch
from llvmlite import ir
from numba import carray, cfunc, types
from numba.extending import intrinsic

from batchchat.engines.cpu.kernels.code import at
from batchchat.engines.cpu.kernels.threads import runtime

WORDS = 40
ALONE, SHARED, PRODUCT, FREE = range(4)
BLOCK = 2
"""The word at which a kernel's block begins; how many rows it computes is the first."""
RESULT, PAIRS = 4, 6
"""Words of a product: where the handle of its result stands, and where its pairs begin."""

_word = types.int64
_SYMBOLS = {
    "product": "aoti_torch_cpu__linear_pointwise",
    "place": "aoti_torch_get_data_ptr",
    "free": "aoti_torch_delete_tensor_object",
}


def _functions() -> dict[str, Any]:
    """The C functions. Raises ImportError where this torch does not have them."""
    if not hasattr(os, "RTLD_NOLOAD"):
        raise ImportError("torch's library cannot be opened here")
    try:
        torch_cpu = ctypes.CDLL("libtorch_cpu.so", mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        found = {name: getattr(torch_cpu, symbol) for name, symbol in _SYMBOLS.items()}
    except (OSError, AttributeError) as error:
        raise ImportError("this torch has no C functions for products") from error
    return found | {"parallel": runtime().GOMP_parallel}


def _external(name: str, *parameters: Any, result: Any = types.int32) -> Any:
    symbol = f"batchchat_{name}"
    llvmlite.binding.add_symbol(symbol, ctypes.cast(_found[name], ctypes.c_void_p).value)
    return types.ExternalFunction(symbol, result(*parameters))


_found = _functions()
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


def _run(parameters: Any) -> None:
    """Rows `[first, last)` of the table at an address. The last parameter becomes the error of the first product that
    failed, or stays 0."""
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


def _compile() -> Callable[[Any], None]:
    signature = types.void(types.CPointer(_word))
    try:
        compiled = cfunc(signature, cache=True)(_run)
    except RuntimeError:  # there is no folder to keep it in
        compiled = cfunc(signature)(_run)
    _kept.append(compiled)
    function: Callable[[Any], None] = compiled.ctypes
    return function


_kept: list[Any] = []
_loop = _compile()
_NONE, _ALGORITHM = ctypes.create_string_buffer(b"none"), ctypes.pointer(ctypes.c_char_p(b""))


def run(table: np.ndarray, first: int, last: int) -> None:
    """Rows `[first, last)` of a table. Raises RuntimeError where a product failed; its results are lost then."""
    block = (ctypes.c_int64 * 7)(
        table.ctypes.data,
        first,
        last,
        torch.get_num_threads(),
        ctypes.addressof(_NONE),
        ctypes.cast(_ALGORITHM, ctypes.c_void_p).value or 0,
        0,
    )
    _loop(block)
    if block[6]:
        raise RuntimeError("a product of packed weights failed; the lines above may say why")


class Handle:
    """A tensor as C functions take it. The tensor lives as long as the handle."""

    def __init__(self, tensor: torch.Tensor):
        capsule = torch._C._aoti.unsafe_alloc_void_ptr_from_tensor(tensor)
        self.address: int = _pointer(capsule, _name(capsule))
        weakref.finalize(self, _found["free"], ctypes.c_void_p(self.address)).atexit = False


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_name = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
