"""Where a model's layers are bitsandbytes': each kind of them is tried with a kernel against bitsandbytes' own
arithmetic, and computed by what gives the same numbers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.trials import TOLERANCE, distance, sample
from batchchat.engines.cpu.fusing import fused_gate
from batchchat.engines.cpu.packing import SIBLINGS, Joined, OutputSlice, Replace
from batchchat.engines.cpu.quantized import NotServedError, QuantizedProduct, Weight, weight_of
from batchchat.engines.facts import QuantizedFacts


def multiply_quantized(model: Any, layers: Sequence[Any], replace: Replace) -> QuantizedFacts:
    """Have a model's quantized layers computed by kernels."""
    trials = _Trials(model.dtype)
    served: dict[nn.Module, Weight] = {}
    left: Counter[str] = Counter()
    for layer in layers:
        try:
            served[layer] = trials.weight(layer)
        except NotServedError as error:
            left[str(error)] += 1
    products = list(_replace(model, served, replace, model.dtype))
    return QuantizedFacts(
        by=products[0].level.name if products else "bitsandbytes",
        layers=len(served),
        bytes_held=sum(weight.bytes for weight in served.values()),
        difference=max(trials.differences.values(), default=None),
        left=dict(left),
    )


class _Trials:
    """What became of one layer of each kind and shape, in a model that computes in `dtype`."""

    def __init__(self, dtype: torch.dtype):
        self._dtype = dtype
        self.differences: dict[tuple[Any, ...], float] = {}
        """To bitsandbytes' own arithmetic, in standard deviations of what comes out."""

    def weight(self, layer: Any) -> Weight:
        """A layer's weight. Raises NotServedError where a kernel cannot read it, or gives other numbers."""
        weight = weight_of(layer)
        kind = (*weight.kind, weight.outputs, layer.bias is not None, weight.words["nested"] != 0)
        if kind not in self.differences:
            self.differences[kind] = self._try(layer, weight)
        difference = self.differences[kind]
        dtypes = {self._dtype, getattr(layer, "compute_dtype", None)} - {None}
        limit = max(TOLERANCE[dtype] for dtype in dtypes)
        if not difference <= limit:
            raise NotServedError(
                f"a kernel's products differ from bitsandbytes' own by {difference:.2g} standard deviations, where "
                f"{limit:g} is what rounding may explain"
            )
        return weight

    @torch.inference_mode()
    def _try(self, layer: Any, weight: Weight) -> float:
        rows = sample(4, weight.size, self._dtype)
        if weight.threshold > 0:
            rows[0, 2, weight.size // 2] = 2 * weight.threshold
        found = QuantizedProduct([weight])(rows)
        with _silently():
            wanted = torch.cat([layer(row.clone()) for row in rows.split(1, dim=1)], dim=1)
        return distance(found, wanted)


@contextmanager
def _silently() -> Iterator[None]:
    """Within, layers do not speak of the casts that they make."""
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    silent, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = silent


def _replace(
    model: nn.Module, served: dict[nn.Module, Weight], replace: Replace, dtype: torch.dtype
) -> Iterator[QuantizedProduct]:
    """Put products in the place of served layers: joined ones where layers take the same input one after the other."""
    done: set[nn.Module] = set()
    gates: dict[nn.Module, QuantizedProduct] = {}
    for module in model.modules():
        for names in SIBLINGS:
            group = [getattr(module, name, None) for name in names]
            weights = [served[layer] for layer in group if layer in served]
            if len(weights) < len(names) or len({weight.kind for weight in weights}) > 1:
                continue
            product = QuantizedProduct(weights)
            joined = Joined(group, product)
            for place, layer in enumerate(group):
                replace(layer, OutputSlice(joined, place))
            done.update(group)
            yield product
            if len(names) == 2:
                gates[module] = product
    for layer, weight in served.items():
        if layer not in done:
            product = QuantizedProduct([weight])
            replace(layer, product)
            yield product
    for module, product in gates.items():
        gate = fused_gate(module, product, dtype)
        if gate is not None:
            replace(module, gate)
