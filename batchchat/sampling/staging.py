"""Small numbers on their way to a device, without a wait for what it computes."""

from __future__ import annotations

from typing import Any

import torch


def staged(values: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A list or an array as a tensor on a device. Memory that is not pinned would be copied with the host waiting."""
    tensor = torch.as_tensor(values, dtype=dtype)
    if device.type == "cuda" and tensor.numel():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
