"""What a paged cache asks of those who attend over its pages."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec


class Seen(NamedTuple):
    """What rows see of a layer's pages."""

    keys: torch.Tensor
    """`[num_blocks, block_size, kv_heads, key_dim]`, as `new_pages` makes them."""
    values: torch.Tensor
    """`[num_blocks, block_size, kv_heads, value_dim]`"""
    tables: torch.Tensor
    """int32 `[rows, max_blocks]`: each row's blocks in order."""
    lengths: torch.Tensor
    """int32 `[rows]`: how many tokens of each are there, those of this pass included."""


class PagedAttention(Protocol):
    """Attention of a layer over pages; modules serve it.

    A row's first `ceil(length / block_size)` entries are read, and no
    place behind its length: what lies there, be it NaN, has no effect. A row of length 0 is padding, whose results are
    0. Only the shapes decide what is launched, so that one recording serves all tables and lengths of a shape.

    """

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
    ) -> None:
        """Keep `key` `[tokens, kv_heads, key_dim]` and `value` alike: a token's slot, int64 `[tokens]`, is
        `block * block_size + place`, or -1 for padding, which is not written."""

    def decode(
        self,
        query: torch.Tensor,
        seen: Seen,
        spec: AttentionSpec,
        *,
        batch_invariant: bool = False,
    ) -> torch.Tensor:
        """Attention of each row's last tokens, equally many of each row: `query` `[rows * count, heads, key_dim]`, row
        by row; returns `[rows * count, heads, value_dim]`.

        A row with fewer tokens has its padding in front, where it sees what the row's earlier tokens see. With
        `batch_invariant` the bits of a row depend on the row (and `count`) alone, not on the other rows, their number,
        its place among them or the width of `tables`.
        """

    def prefill(
        self,
        query: torch.Tensor,
        seen: Seen,
        starts: torch.Tensor,
        spec: AttentionSpec,
        *,
        batch_invariant: bool = False,
    ) -> torch.Tensor:
        """The same with as many tokens of each row as there are: those of row `i` are `query[starts[i]:starts[i + 1]]`
        (int32 `[rows + 1]`, the first 0), the last tokens of the row. Tokens behind the last row's are padding, whose
        results are 0."""
