"""Compiled code, run by the threads that torch computes with.

A second pool of threads would fight with torch's for the cores, since idle workers spin for a while. So a kernel is a
plain C function, and the OpenMP runtime that torch has loaded calls it on torch's own team.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import llvmlite.binding
import torch

from batchchat.engines.cpu.kernels.abi import CURSOR
from batchchat.engines.cpu.kernels.machine_code import THREAD, THREADS, load


def runtime() -> Any:
    """The OpenMP runtime that torch uses. Raises ImportError where it is not GNU's."""
    for name in ("libgomp.so.1", "libgomp.so.1.0.0"):
        try:
            return ctypes.CDLL(name, mode=os.RTLD_NOW | os.RTLD_NOLOAD)
        except (OSError, AttributeError):
            continue
    raise ImportError("torch computes with threads of another runtime than GNU OpenMP")


_gomp = runtime()
for _name, _function in ((THREAD, _gomp.omp_get_thread_num), (THREADS, _gomp.omp_get_num_threads)):
    llvmlite.binding.add_symbol(_name, ctypes.cast(_function, ctypes.c_void_p).value)


_SIGNATURE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Kernel:
    """A kernel of `source` (see `machine_code.load`), called with a block of 64-bit parameters once by each thread. It
    divides the work itself, piece by piece: see `source.code.take`."""

    def __init__(self, name: str, *parameters: Any):
        self._loaded = load(name, *parameters)
        self.address = self._loaded.address
        self._address = ctypes.c_void_p(self.address)
        self._alone = _SIGNATURE(self.address)

    def __call__(self, *parameters: int, shared: bool = True) -> None:
        """Run on all of torch's threads, or on this one where the work is too small to be `shared`."""
        threads = torch.get_num_threads() if shared else 1
        cursors = (ctypes.c_int64 * (CURSOR * threads))()
        block = (ctypes.c_int64 * (1 + len(parameters)))(ctypes.addressof(cursors), *parameters)
        given = ctypes.c_void_p(ctypes.addressof(block) + 8)
        if threads > 1:
            _gomp.GOMP_parallel(self._address, given, threads, 0)
        else:
            self._alone(given)
