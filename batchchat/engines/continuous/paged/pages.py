"""The tensors of a paged cache."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from batchchat.engines.continuous.prefix_index import BLOCK_SIZE


class Pages:
    """Per layer keys `[num_blocks, block_size, kv_heads, key_dim]`, and values alike. Nothing in them is initialized.

    In memory a block's heads come before its tokens, so that a head's keys of a block are one run of numbers.
    """

    def __init__(self, num_blocks: int):
        self.num_blocks = num_blocks
        self.keys: dict[int, torch.Tensor] = {}
        self.values: dict[int, torch.Tensor] = {}

    def learn(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Make room for a layer with such keys and values `[1, heads, tokens, dim]`."""
        if layer not in self.values:
            self.keys[layer], self.values[layer] = self._like(key), self._like(value)

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
                targets = torch.tensor(list(copies), device=pages.device)
                sources = torch.tensor(list(copies.values()), device=pages.device)
                pages[targets] = pages[sources]

    def _like(self, new: torch.Tensor) -> torch.Tensor:
        shape = (self.num_blocks, new.shape[1], BLOCK_SIZE, new.shape[3])
        return torch.empty(shape, dtype=new.dtype, device=new.device).transpose(1, 2)
