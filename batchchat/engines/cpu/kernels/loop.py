"""Runs a table of operations without coming back to Python: kernels on torch's team, and products with packed weights.

The products are called by the C functions that torch's compiler emits for ahead-of-time code. A table is int64
`[operations, abi.WORDS]`, each row beginning with a kind:

- `ALONE`, `SHARED`: a kernel's address, a word for that of cursors, then its block of parameters. Those that follow
  each other are run by one team of torch's threads, or by this thread where none of them is worth sharing.
- `PRODUCT`: handles of the input, of the packed weight and the address of the bias's handle (or 0), two words for the
  handle and the address of the result, then pairs: where in a table that address is wanted, and the bytes beyond it.
- `FREE`: the address of a result's handle.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from typing import Any

import llvmlite.binding
import numpy as np
import torch

from batchchat.engines.cpu.kernels import abi
from batchchat.engines.cpu.kernels.machine_code import load
from batchchat.engines.cpu.kernels.threads import runtime

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


_found = _functions()
for _symbol, _function in _found.items():
    llvmlite.binding.add_symbol(f"batchchat_{_symbol}", ctypes.cast(_function, ctypes.c_void_p).value)
_loaded, _team = load("loop.loop"), load("loop.team")
_loop = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_loaded.address)
_NONE, _ALGORITHM = ctypes.create_string_buffer(b"none"), ctypes.pointer(ctypes.c_char_p(b""))


def run(table: np.ndarray, first: int, last: int) -> None:
    """Rows `[first, last)` of a table. Raises RuntimeError where a product failed; its results are lost then."""
    threads = torch.get_num_threads()
    memory = np.zeros(2 * threads * abi.CURSOR + len(table), dtype=np.int64)
    given = abi.block(
        abi.TABLE,
        table=table.ctypes.data,
        first=first,
        last=last,
        threads=threads,
        cursors=memory.ctypes.data,
        states=memory.ctypes.data + 8 * 2 * threads * abi.CURSOR,
        team=_team.address,
        begin=0,
        end=0,
        none=ctypes.addressof(_NONE),
        algorithm=ctypes.cast(_ALGORITHM, ctypes.c_void_p).value or 0,
        error=0,
    )
    block = (ctypes.c_int64 * len(given))(*given)
    _loop(block)
    if block[abi.word(abi.TABLE, "error")]:
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
