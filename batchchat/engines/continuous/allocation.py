"""Memory that takes its pages only where it is written, and large ones where the system has them."""

from __future__ import annotations

import mmap

import torch

_LARGE = 1 << 21
"""Bytes of a large page on most machines."""


def zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """A tensor of zeros."""
    size = torch.Size(shape).numel() * dtype.itemsize
    if device.type != "cpu" or size < _LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.zeros(*shape, dtype=dtype, device=device)
    area = mmap.mmap(-1, size + _LARGE)
    area.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(area, dtype=torch.uint8)
    first = -whole.data_ptr() % _LARGE
    return whole[first : first + size].view(dtype).view(*shape)
