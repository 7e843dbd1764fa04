"""A loaded model with all lengths of its config made short, so that a prompt of a few dozen tokens shows what the model
itself does only after thousands: windows, chunks, scales of far positions, rotary embeddings that change."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from torch import nn

SHORT = 16
"""Tokens that every length becomes."""

_LENGTHS = re.compile(r"window|chunk|floor|block_size|local_attention|original_max_position")
"""Names of lengths that change what a model computes. Those that only say how long a prompt may be are not among them."""
_GROWING_ROPES = ("dynamic", "longrope")


def rope_threshold(config: Any) -> int | None:
    """The length from which a model's rotary embedding depends on how long the whole sequence is; None where it never
    does. A batch has one such embedding, that of its longest row."""
    config = config.get_text_config()
    found = []
    for rope in _ropes(config):
        if rope.get("rope_type") in _GROWING_ROPES:
            own = getattr(config, "original_max_position_embeddings", None) or config.max_position_embeddings
            found.append(int(rope.get("original_max_position_embeddings") or own))
    return min(found, default=None)


def shortened(model: Any) -> Any | None:
    """The model with short lengths, over the same weights and by the same kernels; None where it has no length that is
    longer than `SHORT`. Raises whatever a model raises that cannot be built from its config."""
    config = copy.deepcopy(model.config)
    if not list(_shorten(config)):
        return None
    from accelerate import dispatch_model, init_empty_weights

    with init_empty_weights(include_buffers=False):
        twin = type(model)(config)
    twin.tie_weights()
    _share(model, twin)
    twin.to(model.device) if not getattr(model, "hf_device_map", None) else None
    return twin.eval()
