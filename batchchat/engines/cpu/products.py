"""Products of rows with a weight, and the ways to compute them: the candidates of `trial`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from batchchat.engines.cpu.kernels import tiled, widens

_ROWS = 32
"""Rows that oneDNN chooses its layout for; all others work."""


class AnyProduct:
    """A product of rows `[..., width]` with a weight `[outputs, width]`."""

    name: str
    """The candidate's that it was made by."""
    packed: torch.Tensor
    """The weight as it is held."""
    bias: torch.Tensor | None
    shape: torch.Size
    """Of the weight."""
    dtype: torch.dtype
    """Of rows and results."""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class PlainProduct(AnyProduct):
    """The product with a weight `[outputs, width]` as torch computes it."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        self.packed = weight
        self.bias = bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return functional.linear(rows, self.packed, self.bias)


class Product(AnyProduct):
    """The same with the weight packed by oneDNN."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)
        self.bias = bias
        self._product = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self._product(rows, self.packed, self.bias, "none", [], "")


class KernelProduct(AnyProduct):
    """One that a compiled kernel computes, which a program calls by its address."""

    def operation(self, rows: int, source: int, target: int) -> tuple[Any, list[int]]:
        """The kernel, and its block of parameters for rows and results at these addresses."""
        raise NotImplementedError


class TiledProduct(KernelProduct):
    """By the matrix units of processors that have them."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        from batchchat.engines.cpu.kernels import layouts

        self.packed = torch.empty_like(weight, memory_format=torch.contiguous_format)
        layouts.pack_tiles(weight, self.packed)
        self.bias = bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        from batchchat.engines.cpu.kernels import ops

        return ops.tiled_product(rows, self.packed, self.bias)

    def operation(self, rows: int, source: int, target: int) -> tuple[Any, list[int]]:
        from batchchat.engines.cpu.kernels import ops

        return ops.tiled_kernel(), ops.product_block(rows, self.shape, source, self.packed, target, self.bias)


class WidenedProduct(KernelProduct):
    """In single precision, with weights `held` in memory in another type, or as they are."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None, held: torch.dtype | None = None):
        from batchchat.engines.cpu.kernels import ops

        self.packed = ops.widened_weight(weight.to(held or weight.dtype))
        self.bias = bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        from batchchat.engines.cpu.kernels import ops

        outputs, size = self.shape
        rows = rows.contiguous()
        out = rows.new_empty(*rows.shape[:-1], outputs)
        if rows.numel():  # a pass may want no logits
            kernel, block = self.operation(rows.numel() // size, rows.data_ptr(), out.data_ptr())
            kernel(*block, shared=self.packed.numel() >= ops.WORTH_SHARING)
        return out

    def operation(self, rows: int, source: int, target: int) -> tuple[Any, list[int]]:
        from batchchat.engines.cpu.kernels import ops

        block = ops.product_block(rows, self.shape, source, self.packed, target, self.bias)
        return ops.widened_kernel(self.dtype, self.packed.dtype), block


class Candidate(NamedTuple):
    """A way to compute products."""

    make: Callable[[torch.Tensor, torch.Tensor | None], AnyProduct]
    """From a weight `[outputs, width]` and a bias `[outputs]`. May raise anything where it does not exist here."""
    serves: Callable[[int, int, torch.dtype], bool]
    """Whether it may exist here for a weight of so many outputs, of a width and a type."""
    by: str
    """What computes, for the report."""
    in_float32: bool = False
    """Its arithmetic is in single precision whatever the weight is."""
    copies: bool = False
    """It holds narrow weights in float32."""
    independent: bool = False
    """It gives a row its own bits, among however many others."""


def _in_float32(weight: torch.Tensor, bias: torch.Tensor | None) -> WidenedProduct:
    return WidenedProduct(weight, bias, held=torch.float32)


def _fit_tiles(outputs: int, width: int, dtype: torch.dtype) -> bool:
    if not tiled():
        return False
    from batchchat.engines.cpu.kernels import layouts

    return layouts.fit_tiles(outputs, width, dtype)


CANDIDATES = {
    "tiles": Candidate(TiledProduct, _fit_tiles, "batchchat's kernel for matrix units", independent=True),
    "kernel": Candidate(
        WidenedProduct,
        lambda _, __, dtype: widens(dtype),
        "batchchat's kernel",
        in_float32=True,
        independent=True,
    ),
    "kernel, float32 copy": Candidate(
        _in_float32,
        lambda _, __, dtype: dtype != torch.float32 and widens(dtype),
        "batchchat's kernel",
        in_float32=True,
        copies=True,
        independent=True,
    ),
    "oneDNN": Candidate(Product, lambda *_: torch.backends.mkldnn.enabled, "oneDNN, weights in its own order"),
    "torch": Candidate(PlainProduct, lambda *_: True, "torch"),
}
"""By name, in the order in which they are preferred where nothing tells them apart."""


def candidates(outputs: int, width: int, dtype: torch.dtype) -> list[str]:
    """Names of those that compute products of a shape here, and rightly."""
    return [name for name, one in CANDIDATES.items() if one.serves(outputs, width, dtype) and _is_right(name, dtype)]


def make(name: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> AnyProduct:
    """The product by a candidate."""
    product = CANDIDATES[name].make(weight, bias)
    product.name, product.shape, product.dtype = name, weight.shape, weight.dtype
    return product


@cache
@torch.inference_mode()
def _is_right(name: str, dtype: torch.dtype) -> bool:
    """Whether a small product comes out as torch's own does."""
    weight = torch.linspace(-1, 1, 32 * 64).sin().view(32, 64).to(dtype)
    bias, rows = torch.linspace(-2, 2, 32).to(dtype), torch.linspace(-9, 7, 3 * 64).sin().view(1, 3, 64).to(dtype)
    wanted = functional.linear(rows.double(), weight.double(), bias.double()).to(dtype)
    try:
        found = make(name, weight, bias)(rows)
    except (AttributeError, RuntimeError, ImportError):  # there is no such operator here, or not for this type
        return False
    rounding = torch.finfo(dtype).eps + 64 * torch.finfo(torch.float32).eps
    return found.dtype == dtype and float((found - wanted).abs().max()) <= rounding * float(wanted.abs().max())
