"""Memory that takes its pages only where it is written, and large ones where the system has them."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import torch

_LARGE = 1 << 21
"""Bytes of a large page on most machines."""
_LINE = 64
"""Bytes of a cache line, where tensors begin."""

Wanted = tuple[Sequence[int], torch.dtype, torch.device]
"""Shape, type and device of a tensor."""


def zeros(wanted: Sequence[Wanted]) -> list[torch.Tensor]:
    """Tensors of zeros. Those of the CPU lie side by side."""
    on_cpu = [want for want in wanted if want[2].type == "cpu"]
    sizes = [torch.Size(shape).numel() * dtype.itemsize for shape, dtype, _ in on_cpu]
    if sum(sizes) < _LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return [torch.zeros(*shape, dtype=dtype, device=device) for shape, dtype, device in wanted]
    area = mmap.mmap(-1, sum(sizes) + len(sizes) * _LINE + _LARGE)
    area.madvise(mmap.MADV_HUGEPAGE)
    whole = torch.frombuffer(area, dtype=torch.uint8)
    place = -whole.data_ptr() % _LARGE
    found = []
    for shape, dtype, device in wanted:
        if device.type != "cpu":
            found.append(torch.zeros(*shape, dtype=dtype, device=device))
            continue
        size = torch.Size(shape).numel() * dtype.itemsize
        found.append(whole[place : place + size].view(dtype).view(*shape))
        place += -(-size // _LINE) * _LINE
    return found
