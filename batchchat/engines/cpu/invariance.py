"""Whether packed products give a row the same bits whatever the number of rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.admission.cancelling import cancelling, same_at_any_size
from batchchat.engines.continuous.trials import sample
from batchchat.engines.cpu.kernels import compiled
from batchchat.engines.cpu.packing import is_packed, packed_products
from batchchat.engines.cpu.products import CANDIDATES, AnyProduct, make
from batchchat.models.quantized import quantized_layers

_MOST_OUTPUTS = 4096
"""Of a product that gives a row its own bits by itself: it computes a few outputs after the other, and more of them,
such as a vocabulary's, show nothing else and take seconds."""


@torch.inference_mode()
def products_are_invariant(model: Any, sizes: Collection[int]) -> bool:
    """Whether all products of a model are packed, and every shape that occurs gives the same bits in every size."""
    linears = [module for module in model.modules() if type(module) is nn.Linear] + quantized_layers(model)
    if not compiled() or not linears or not all(map(is_packed, linears)):
        return False
    from batchchat.engines.cpu import experts

    if any(map(experts.is_left_alone, model.modules())):
        return False
    products = [*packed_products(model), *experts.packed_products(model)]
    kinds = {(one.name, one.shape, one.dtype): one for one in products}
    return all(_product_is_invariant(one, sizes) for one in kinds.values()) and all(
        same_at_any_size(layer, sample(max(sizes), layer.in_features, model.dtype), sizes)
        for layer in _one_of_each(quantized_layers(model))
    )


def _one_of_each(layers: Iterable[Any]) -> Iterable[Any]:
    """Quantized layers, one of each kind and shape."""
    return {(type(layer), layer.in_features, layer.out_features): layer for layer in layers}.values()


def _product_is_invariant(product: AnyProduct, sizes: Collection[int]) -> bool:
    outputs, width = product.shape
    if CANDIDATES[product.name].independent:
        outputs = min(outputs, _MOST_OUTPUTS)
    weight, rows = cancelling(width, outputs, max(sizes), product.dtype, torch.device("cpu"))
    return same_at_any_size(make(product.name, weight), rows, sizes)
