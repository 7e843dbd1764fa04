"""Whether torch's C functions may be called by address: a changed signature would end the process, not raise."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from functools import cache

import torch

TRIED = ("2.13",)
"""Versions of torch with which the tests of this package have called them."""
_SECONDS = 120


@cache
def are_trusted() -> bool:
    """True for a version that was tried; any other is tried now, in a process of its own."""
    if torch.__version__.startswith(tuple(f"{version}." for version in TRIED)):
        return True
    return survives([sys.executable, "-m", __name__])


def survives(command: list[str]) -> bool:
    """Whether a trial process ends well in time."""
    try:
        return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _trial() -> None:
    """One product by the C functions, held against torch's own."""
    import numpy as np

    from batchchat.engines.cpu.kernels import loop
    from batchchat.engines.cpu.packing import Product

    for bias in (None, torch.linspace(-1, 1, 32)):
        product = Product(torch.linspace(-1, 1, 32 * 48).view(32, 48), bias)
        rows = torch.linspace(-2, 2, 3 * 48).view(3, 48)
        source, weight = loop.Handle(rows), loop.Handle(product.packed)
        handle = None if bias is None else loop.Handle(bias)
        word = np.array([0 if handle is None else handle.address], dtype=np.int64)
        table = np.zeros((2, loop.WORDS), dtype=np.int64)
        of_bias = 0 if bias is None else word.ctypes.data
        table[0, : loop.RESULT] = loop.PRODUCT, source.address, weight.address, of_bias
        table[1, :2] = loop.FREE, table.ctypes.data + 8 * loop.RESULT
        loop.run(table, 0, 1)
        place = int(table[0, loop.RESULT + 1])
        found = np.ctypeslib.as_array((ctypes.c_float * (3 * 32)).from_address(place)).copy()
        loop.run(table, 1, 2)
        torch.testing.assert_close(torch.from_numpy(found).view(3, 32), product(rows[None])[0])


if __name__ == "__main__":
    _trial()
