"""Who attends over the pages of a layer: kernels of the device where it has some, found by the device."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged import attention as torch_attention
from batchchat.engines.continuous.paged.contract import PagedAttention
from batchchat.engines.continuous.paged.trial import fault

BACKENDS: dict[str, str] = {"cuda": "batchchat.engines.cuda.backend"}
"""Device type to the module that knows them: its `candidates` takes a `LayerKind`, and the last one can serve every
layer by torch's operators."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Who attends over a layer's pages."""

    name: str
    attention: PagedAttention
    refused: Mapping[str, str] = field(default_factory=dict)
    """Those that should be faster, and why each was not taken, as a sentence."""
    gathers: bool = False
    """It copies all blocks that a table could name, on an accelerator, so that it cannot be recorded with long ones."""


def choose(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spec: AttentionSpec) -> Backend:
    """The backend for a layer with queries `[tokens, heads, dim]` and such pages: the first that can serve it and gives
    right numbers in a trial, which is made once for each kind of layer."""
    module = BACKENDS.get(query.device.type)
    if module is None:
        return Backend("torch", torch_attention)
    backends = importlib.import_module(module)
    _, block_size, kv_heads, key_dim = keys.shape
    kind = backends.LayerKind(
        heads=query.shape[1],
        kv_heads=kv_heads,
        key_dim=key_dim,
        value_dim=values.shape[3],
        block_size=block_size,
        dtype=query.dtype,
        device=query.device,
        softcap=spec.softcap is not None,
        sinks=spec.sinks is not None,
    )
    return tried(backends, kind)


@cache
def tried(backends: Any, kind: Any) -> Backend:
    refused: dict[str, str] = {}
    *kernels, last = backends.candidates(kind)
    for name, attention, why_not in kernels:
        why_not = why_not or fault(attention, kind)
        if why_not is None:
            return Backend(name, attention, refused)
        refused[name] = why_not
    return Backend(last.name, last.backend, refused, gathers=kind.device.type != "cpu")
