"""How many tokens' keys and values there is room for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from batchchat.models.facts import ModelFacts

_SHARE = 0.8
"""Of the free memory. A pool that grows is there twice for a moment, and a pass needs room for its own numbers."""
_MOST = 1 << 24
"""Tokens beyond which more room is of no use."""


def free_bytes(device: torch.device) -> int:
    """What an accelerator has left, memory that torch holds and does not use included."""
    free, _ = torch.accelerator.get_memory_info(device)
    unused = torch.accelerator.memory_reserved(device) - torch.accelerator.memory_allocated(device)
    return int(free + unused)


def kv_tokens(
    facts: Callable[[], ModelFacts],
    device: torch.device,
    otherwise: int,
    free: Callable[[torch.device], int] = free_bytes,
) -> int:
    """The KV budget for a model that is loaded: `otherwise` on the CPU, on an accelerator what its memory holds beside
    the weights. `facts` gives those of `models.facts`, which take their time: only an accelerator asks for them.
    `otherwise` as well where they do not say what a token takes."""
    per_token = None if device.type == "cpu" else facts().cache_bytes_per_token
    if per_token is None:
        return otherwise
    return max(1, min(_MOST, int(free(device) * _SHARE) // per_token))
