"""How a layer scores its keys."""

from __future__ import annotations

from typing import NamedTuple

import torch


class AttentionSpec(NamedTuple):
    """How a layer scores its keys."""

    scaling: float
    window: int | None = None
    """A query sees that many keys, its own included."""
    softcap: float | None = None
    """Scores pass through `cap * tanh(x / cap)` (Gemma 2)."""
    sinks: torch.Tensor | None = None
    """`[heads]`: a score per head that takes part in the softmax and brings no value (GPT-OSS)."""
