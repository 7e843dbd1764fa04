"""Linear layers computed by the fastest product there is for each, and those over the same input joined into one.

The modules keep their parameters; only the `forward` of single layers is replaced, and what `preparation.prepare`
returns gives it back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import psutil
import torch
from torch import nn

from batchchat.engines.cpu.products import CANDIDATES, AnyProduct, candidates, make
from batchchat.engines.cpu.trial import Shape, chosen
from batchchat.engines.facts import ProductFacts
from batchchat.models.memory import PACKED_SHARE

Replace = Callable[[nn.Module, Callable[[torch.Tensor], torch.Tensor]], None]
"""Puts another `forward` in the place of a module's own."""

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Linear layers that take the same input one after the other, by the names that most decoders give them."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_KEPT = "products"
"""What is kept of the choice: a resumed run computes as it began."""


class Choice:
    """Chooses what computes products. `kept`: what computed each shape when the run began, which computes it again.
    `independent`: a row's bits must not depend on the others; where they do, passes have one size, which takes longer
    than any product."""

    def __init__(self, kept: MutableMapping[str, Any], independent: bool = False):
        self._kept = kept
        self._independent = independent
        self._names: dict[str, str] = dict(kept.get(_KEPT, {}))
        """Those of the candidates, by the shapes' names."""

    @torch.inference_mode()
    def product(self, weight: torch.Tensor, bias: torch.Tensor | None = None, *, may_copy: bool = False) -> AnyProduct:
        """The product with a weight `[outputs, width]` and a bias in the fastest way there is here. `may_copy`: there
        is memory for a copy in float32."""
        outputs, width = weight.shape
        shape = Shape(outputs, width, weight.dtype)
        if self._names.get(shape.name) not in candidates(*shape):
            self._names[shape.name] = chosen(shape, weight, may_copy, self._independent)
        return make(self._names[shape.name], weight.detach(), bias)

    def keep(self) -> None:
        """Tell `kept` of what was chosen."""
        self._kept[_KEPT] = self._names


def pack(model: nn.Module, replace: Replace, choice: Choice) -> dict[nn.Module, AnyProduct]:
    """Have all linear layers of a model on the CPU computed in the fastest way there is for each, if there is memory
    for a second copy of them. Returns the products of gates and what they gate, by the module that holds both.
    """
    linears = [module for module in model.modules() if type(module) is nn.Linear]
    places = {(linear.weight.device.type, linear.weight.dtype in _DTYPES) for linear in linears}
    room = PACKED_SHARE * psutil.virtual_memory().available
    if places != {("cpu", True)} or sum(linear.weight.nbytes for linear in linears) > room:
        return {}
    may_copy = sum(4 * linear.weight.numel() for linear in linears) <= room
    gates: dict[nn.Module, AnyProduct] = {}
    for module in model.modules():
        for group in _groups(module):
            joined = Joined(group, _product(group, choice, may_copy))
            if len(group) == 2:
                gates[module] = joined.product
            for place, linear in enumerate(group):
                replace(linear, OutputSlice(joined, place))
    for linear in linears:
        if not is_packed(linear):
            replace(linear, _product([linear], choice, may_copy))
    return gates


@torch.inference_mode()
def _product(linears: Sequence[nn.Linear], choice: Choice, may_copy: bool) -> AnyProduct:
    """The joined product of linear layers."""
    weight = torch.cat([linear.weight for linear in linears]) if len(linears) > 1 else linears[0].weight
    biases = [linear.bias for linear in linears if linear.bias is not None]
    return choice.product(weight, torch.cat(biases).detach() if biases else None, may_copy=may_copy)


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


def product_shapes(model: nn.Module, dtype: torch.dtype) -> dict[Shape, int]:
    """The shapes of products that a model would be computed by, packed in weights of a type, and how many of each."""
    groups = [group for module in model.modules() for group in _groups(module)]
    joined = {linear for group in groups for linear in group}
    alone = [[module] for module in model.modules() if type(module) is nn.Linear and module not in joined]
    outputs = ((sum(linear.out_features for linear in group), group[0].in_features) for group in groups + alone)
    return Counter(Shape(*sizes, dtype) for sizes in outputs)


def packed_products(model: nn.Module) -> list[AnyProduct]:
    """All products that a packed model computes, each once."""
    forwards = [vars(module).get("forward") for module in model.modules()]
    products = [one.joined.product if isinstance(one, OutputSlice) else one for one in forwards]
    return list(dict.fromkeys(one for one in products if isinstance(one, AnyProduct)))


def product_facts(model: nn.Module) -> tuple[ProductFacts, ...]:
    """What computes a packed model's products, by their shapes."""
    shapes: dict[tuple[torch.Size, str], list[AnyProduct]] = {}
    for product in packed_products(model):
        shapes.setdefault((product.shape, product.name), []).append(product)
    return tuple(
        ProductFacts(
            product=f"{width} to {outputs}",
            count=len(found),
            by=CANDIDATES[name].by,
            weights=_name(found[0].packed.dtype),
            arithmetic=_name(torch.float32 if CANDIDATES[name].in_float32 else found[0].dtype),
            held_bytes=sum(one.packed.nbytes for one in found),
        )
        for ((outputs, width), name), found in shapes.items()
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Joined:
    """Linear layers that are called one after the other with the same tensor: the first call computes for all."""

    def __init__(self, linears: Sequence[nn.Linear], product: Any):
        self.product = product
        """An `AnyProduct`, or a `QuantizedProduct`."""
        self.sizes = [linear.out_features for linear in linears]
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
