"""`python -m batchchat.engines.cpu.c_trial`: torch's C functions tried in a process that may die of them."""

from __future__ import annotations

import ctypes

import numpy as np
import torch

from batchchat.engines.cpu.kernels import abi, loop
from batchchat.engines.cpu.products import Product


def main() -> None:
    """One product by the C functions, held against torch's own."""
    for bias in (None, torch.linspace(-1, 1, 32)):
        product = Product(torch.linspace(-1, 1, 32 * 48).view(32, 48), bias)
        rows = torch.linspace(-2, 2, 3 * 48).view(3, 48)
        source, weight = loop.Handle(rows), loop.Handle(product.packed)
        handle = None if bias is None else loop.Handle(bias)
        word = np.array([0 if handle is None else handle.address], dtype=np.int64)
        table = np.zeros((2, abi.WORDS), dtype=np.int64)
        of_bias = 0 if bias is None else word.ctypes.data
        table[0, : abi.RESULT] = abi.PRODUCT, source.address, weight.address, of_bias
        table[1, :2] = abi.FREE, table.ctypes.data + 8 * abi.RESULT
        loop.run(table, 0, 1)
        place = int(table[0, abi.RESULT + 1])
        found = np.ctypeslib.as_array((ctypes.c_float * (3 * 32)).from_address(place)).copy()
        loop.run(table, 1, 2)
        torch.testing.assert_close(torch.from_numpy(found).view(3, 32), product(rows[None])[0])


if __name__ == "__main__":
    main()
