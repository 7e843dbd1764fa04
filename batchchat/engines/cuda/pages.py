"""How keys and values lie in memory: fixed-size blocks of tokens, found through a table per row.

Source: https://arxiv.org/abs/2309.06180
"""

from __future__ import annotations

import torch

BLOCK_SIZES = (16, 32, 64, 128, 256)
"""Tokens per block."""


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
