"""Which kind of KV cache a device gets."""

from __future__ import annotations

from typing import Any, Literal

import torch

from batchchat.engines.continuous.base import KVStore
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.paged.paged_cache import PagedCache


def make_cache(
    kind: Literal["auto", "slots", "paged"],
    device: torch.device,
    budget: int,
    granularity: int = 1,
    longest: int | None = None,
) -> KVStore[Any]:
    """A cache for up to `budget` tokens: slots on the CPU, whose products read them in place, and pages elsewhere.
    `longest`: tokens of a sequence at most, where that is known."""
    if kind == "slots" or (kind == "auto" and device.type == "cpu"):
        return KVCache(budget, granularity)
    return PagedCache(budget, granularity, longest)
