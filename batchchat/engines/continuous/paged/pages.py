"""The tensors of a paged cache."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from batchchat.engines.continuous.prefix_index import BLOCK_SIZE
from batchchat.sampling import staged


class Pages:
    """Per layer keys `[num_blocks, block_size, kv_heads, key_dim]`, and values alike: see `new_pages`."""

    def __init__(self, num_blocks: int):
        self.num_blocks = num_blocks
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}

    def learn(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Make room for a layer with such keys and values `[tokens, heads, dim]`."""
        if layer not in self.values:
            self.keys[layer], self.values[layer] = (
                new_pages(self.num_blocks, BLOCK_SIZE, new.shape[1], new.shape[2], new.dtype, new.device)
                for new in (key, value)
            )

    @property
    def bytes_per_block(self) -> int:
        return sum(t[0].numel() * t.itemsize for store in (self.keys, self.values) for t in store.values())

    @torch.inference_mode()
    def copy(self, copies: Mapping[int, int]) -> None:
        """Fill blocks from others: targets to sources, as they are before any of it."""
        if not copies:
            return
        for store in (self.keys, self.values):
            for pages in store.values():
                targets = staged(list(copies), pages.device)
                sources = staged(list(copies.values()), pages.device)
                pages[targets] = pages[sources]


def new_pages(
    num_blocks: int, block_size: int, kv_heads: int, dim: int, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    """Room for one layer's keys (or values), not initialized, `[num_blocks, block_size, kv_heads, dim]`.

    In memory the heads come before the tokens: attention reads one head's keys of one block after the other, which
    so are one run of `block_size * dim` numbers, and a block is one run for who copies it. A pass writes one token per
    head and row, and `dim` numbers are whole cache lines in either order. The shape is the one that torch's own paged
    attention takes; every reader goes by the strides, of which only the last one must be 1.
    """
    return torch.empty(num_blocks, kv_heads, block_size, dim, dtype=dtype, device=device).transpose(1, 2)
