"""Who attends over the pages of a layer: kernels of the device where it has some, found by the device."""

from __future__ import annotations

import importlib

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged import attention as torch_attention
from batchchat.engines.continuous.paged.contract import PagedAttention

BACKENDS: dict[str, str] = {"cuda": "batchchat.engines.cuda.backend"}
"""Device type to the module that chooses: its `choose` takes a `LayerKind`, and can serve every one."""


def choose(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, spec: AttentionSpec
) -> tuple[str, PagedAttention]:
    """Name and functions of the backend for a layer with queries `[tokens, heads, dim]` and such pages."""
    module = BACKENDS.get(query.device.type)
    if module is None:
        return "torch", torch_attention
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
    chosen = backends.choose(kind)
    return chosen.name, chosen.backend
