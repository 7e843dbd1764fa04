"""Weights laid out for the CPU's matrix units, and products over the same input joined into one.

torch's compiler packs weights with oneDNN operators that are not public. They are used here where they exist and give
the numbers of the plain product, and left alone where not. The modules keep their parameters; only the `forward` of
single layers is replaced, and what `preparation.prepare` returns gives it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import torch
from torch import nn

from batchchat.engines.continuous.trials import Forward
from batchchat.engines.cpu.kernels import tiled
from batchchat.models.memory import PACKED_SHARE

Replace = Callable[[nn.Module, Callable[[torch.Tensor], torch.Tensor]], None]
"""Puts another `forward` in the place of a module's own."""

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Linear layers that take the same input one after the other, by the names that most decoders give them."""

_ROWS = 32
"""Rows that the layout is chosen for; all others work."""


def pack(model: nn.Module, replace: Replace) -> dict[nn.Module, AnyProduct]:
    """Pack all linear layers of a model on the CPU, where that is possible and there is memory for a second copy of
    them. Returns the products of gates and what they gate, by the module that holds both."""
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    size = sum(linear.weight.nbytes for linear in linears)
    if not _supported(linears) or size > PACKED_SHARE * psutil.virtual_memory().available:
        return {}
    gates: dict[nn.Module, AnyProduct] = {}
    for module in model.modules():
        for group in _groups(module):
            product = _product(group)
            joined = Joined(product, [linear.out_features for linear in group])
            if len(group) == 2:
                gates[module] = product
            for place, linear in enumerate(group):
                replace(linear, OutputSlice(joined, place))
    for linear in linears:
        if not is_packed(linear):
            replace(linear, _product([linear]))
    return gates


def _supported(linears: Sequence[nn.Linear]) -> bool:
    """Whether the operators are there, and give for a small product what the plain one gives."""
    kinds = {(linear.weight.device.type, linear.weight.dtype) for linear in linears}
    if not kinds or not kinds <= {("cpu", torch.bfloat16), ("cpu", torch.float32)} or not torch.backends.mkldnn.enabled:
        return False
    try:
        for _, dtype in kinds:
            small = nn.Linear(48, 32, dtype=dtype)
            rows = torch.linspace(-1, 1, 3 * 48, dtype=dtype).view(1, 3, 48)
            with torch.inference_mode():
                torch.testing.assert_close(_product([small])(rows), small(rows))
    except (AttributeError, RuntimeError, AssertionError):
        return False
    return True


def _groups(module: nn.Module) -> Iterator[list[nn.Linear]]:
    """Children of a module whose products can be one: linear layers of one input width, all with a bias or none."""
    for names in SIBLINGS:
        children: list[Any] = [getattr(module, name, None) for name in names]
        if all(type(child) is nn.Linear for child in children):
            kinds = {(child.in_features, child.bias is None, child.weight.dtype) for child in children}
            if len(kinds) == 1:
                yield children


def is_packed(linear: nn.Linear) -> bool:
    return "forward" in vars(linear)


def product_shapes(model: nn.Module) -> set[tuple[int, int, torch.dtype]]:
    """Width, outputs and dtype of each product that a packed model computes."""
    groups = [group for module in model.modules() for group in _groups(module)]
    joined = {linear for group in groups for linear in group}
    alone = [[module] for module in model.modules() if type(module) is nn.Linear and module not in joined]
    return {
        (group[0].in_features, sum(linear.out_features for linear in group), group[0].weight.dtype)
        for group in groups + alone
    }


def _product(linears: Sequence[nn.Linear]) -> AnyProduct:
    """The joined product of linear layers with packed weights."""
    weight = torch.cat([linear.weight for linear in linears]) if len(linears) > 1 else linears[0].weight
    biases = [linear.bias for linear in linears if linear.bias is not None]
    return product_of(weight.detach(), torch.cat(biases).detach() if biases else None)


class Product:
    """The product with a weight `[outputs, width]`, packed by oneDNN."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)
        self.bias = bias
        self._product = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self._product(rows, self.packed, self.bias, "none", [], "")


class TiledProduct:
    """The same by a kernel for matrix units, which reads the weight faster where rows are few."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        from batchchat.engines.cpu.kernels import ops, tiles

        self.packed = torch.empty_like(weight, memory_format=torch.contiguous_format)
        tiles.pack(weight, self.packed)
        self.bias = bias
        self._product = ops.tiled_product

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self._product(rows, self.packed, self.bias)


AnyProduct = Product | TiledProduct


@torch.inference_mode()
def product_of(weight: torch.Tensor, bias: torch.Tensor | None = None) -> AnyProduct:
    """The product with a weight `[outputs, width]`, by what is the fastest here."""
    if tiled():
        from batchchat.engines.cpu.kernels import tiles

        outputs, width = weight.shape
        if tiles.fits(outputs, width, weight.dtype):
            return TiledProduct(weight, bias)
    return Product(weight, bias)


class Joined:
    """Linear layers that are called one after the other with the same tensor: the first call computes for all."""

    def __init__(self, product: Forward, sizes: list[int]):
        self.product = product
        self.sizes = sizes
        self._input: torch.Tensor | None = None
        self._parts: dict[int, torch.Tensor] = {}

    def take(self, rows: torch.Tensor, place: int) -> torch.Tensor:
        if rows is not self._input or place not in self._parts:
            self._input = rows
            self._parts = dict(enumerate(self.product(rows).split(self.sizes, dim=-1)))
        found = self._parts.pop(place)
        if not self._parts:
            self._input = None
        return found


class OutputSlice:
    """One of the layers that are joined."""

    def __init__(self, joined: Joined, place: int):
        self.joined = joined
        self._place = place

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return self.joined.take(rows, self._place)
