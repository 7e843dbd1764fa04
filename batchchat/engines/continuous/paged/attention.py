"""Attention over pages by torch's operators, row by row: correct on any device, slower than kernels.

Keys and values are `[num_blocks, block_size, kv_heads, dim]`. `tables` int32 `[rows, max_blocks]` names each row's
blocks in order, `lengths` int32 `[rows]` says how many tokens of each are there, those of the pass included. Nothing
behind a row's length is read, so that a row's numbers depend on the row alone. Rows of length 0 are padding.
"""

from __future__ import annotations

from typing import Protocol

import torch


class PagedAttention(Protocol):
    """Who attends over pages."""

    def write(
        self, key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
    ) -> None:
        """Keep `key` and `value` `[tokens, kv_heads, dim]`: a token's slot, int64 `[tokens]`, is
        `block * block_size + place`, or -1 for padding, which is not kept."""

    def decode(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        tables: torch.Tensor,
        lengths: torch.Tensor,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: torch.Tensor | None = None,
        *,
        strict: bool = False,
    ) -> torch.Tensor:
        """Attention of each row's last token: `[rows, heads, value_dim]` for `query` `[rows, heads, key_dim]`, zeros
        for padding. `strict`: a row's bits depend on the row alone."""

    def prefill(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        tables: torch.Tensor,
        lengths: torch.Tensor,
        starts: torch.Tensor,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: torch.Tensor | None = None,
        *,
        strict: bool = False,
    ) -> torch.Tensor:
        """The same for rows of any number of last tokens: those of row `i` are `query[starts[i]:starts[i + 1]]`, int32
        `[rows + 1]`. Tokens behind the last row's are padding."""


def write(
    key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    real = slots >= 0
    kept = slots[real]
    blocks, places = kept // keys.shape[1], kept % keys.shape[1]
    keys[blocks, places] = key[real]
    values[blocks, places] = value[real]


def decode(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    *,
    strict: bool = False,
) -> torch.Tensor:
    starts = torch.arange(len(query) + 1)
    return prefill(query, keys, values, tables, lengths, starts, scaling, window, softcap, sinks, strict=strict)


def prefill(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    tables: torch.Tensor,
    lengths: torch.Tensor,
    starts: torch.Tensor,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
    *,
    strict: bool = False,  # rows are computed one by one in any mode
) -> torch.Tensor:
    out = query.new_zeros(*query.shape[:2], values.shape[3])
    bounds = starts.tolist()
    for row, length in enumerate(lengths.tolist()):
        begin, end = bounds[row], bounds[row + 1]
        if length and end > begin:
            blocks = tables[row, : -(-length // keys.shape[1])]
            key, value = (pages[blocks].flatten(0, 1)[:length] for pages in (keys, values))
            out[begin:end] = _attend(query[begin:end], key, value, scaling, window, softcap, sinks)
    return out


def _attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scaling: float,
    window: int | None,
    softcap: float | None,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """The last tokens' `query` `[count, heads, key_dim]` over one row's keys and values `[length, kv_heads, dim]`."""
    count, heads, _ = query.shape
    length, kv_heads, value_dim = value.shape
    shared = query.view(count, kv_heads, heads // kv_heads, -1).permute(1, 2, 0, 3)
    scores = torch.matmul(shared, key.permute(1, 2, 0)[:, None]).float() * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    places = torch.arange(length, device=query.device)
    positions = places[length - count :, None]
    unseen = places > positions
    if window is not None:
        unseen |= places <= positions - window
    scores = scores.masked_fill(unseen, float("-inf"))
    if sinks is not None:
        own = sinks.float().view(kv_heads, -1, 1, 1).expand(-1, -1, count, -1)
        scores = torch.cat((scores, own), dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., :length].to(value.dtype)
    out = torch.matmul(weights, value.permute(1, 0, 2)[:, None])
    return out.permute(2, 0, 1, 3).reshape(count, heads, value_dim)
