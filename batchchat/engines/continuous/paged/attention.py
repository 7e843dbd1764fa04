"""Attention over pages by torch's operators, for any device: `contract.PagedAttention` says what each function does.

Pages are gathered into dense keys and values first. Correct everywhere, slower where there are kernels; `prefill`
waits for the device, so that passes with it cannot be recorded.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged.contract import Seen

_QUERIES = 512
"""Tokens whose scores are held at once."""


def write(
    key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    if not len(slots):
        return
    real = slots >= 0
    first = real.int().argmax()  # padding writes once more what the first token writes, or what is there
    source = torch.where(real, torch.arange(len(slots), device=slots.device), first)
    blocks, places = slots[source] // keys.shape[1], slots[source] % keys.shape[1]
    for pages, new in ((keys, key), (values, value)):
        pages[blocks, places] = torch.where(real.any(), new[source], pages[blocks, places])


def decode(
    query: torch.Tensor,
    seen: Seen,
    spec: AttentionSpec,
    *,
    batch_invariant: bool = False,
) -> torch.Tensor:
    keys, values, tables, lengths = seen
    rows, (tokens, heads, _) = tables.shape[0], query.shape
    out = query.new_empty(tokens, heads, values.shape[3])
    if not tokens:
        return out
    own = query.view(rows, tokens // rows, *query.shape[1:])
    shared = out.view(rows, tokens // rows, *out.shape[1:])
    for row in range(rows) if batch_invariant else (slice(None),):  # a product's bits depend on its shape
        chosen = slice(row, row + 1) if isinstance(row, int) else row
        shared[chosen] = _attend(own[chosen], Seen(keys, values, tables[chosen], lengths[chosen]), 0, spec)
    return out


def prefill(
    query: torch.Tensor,
    seen: Seen,
    starts: torch.Tensor,
    spec: AttentionSpec,
    *,
    batch_invariant: bool = False,  # rows are computed one by one in any mode
) -> torch.Tensor:
    keys, values, tables, lengths = seen
    out = query.new_zeros(*query.shape[:2], values.shape[3])
    bounds = starts.tolist()
    for row, (begin, end) in enumerate(pairwise(bounds)):
        own = Seen(keys, values, tables[row : row + 1], lengths[row : row + 1])
        for first in range(begin, end, _QUERIES):
            last = min(first + _QUERIES, end)
            out[first:last] = _attend(query[None, first:last], own, end - last, spec)
    return out


def _attend(
    query: torch.Tensor,
    seen: Seen,
    behind: int,
    spec: AttentionSpec,
) -> torch.Tensor:
    """`query` `[rows, count, heads, key_dim]`, of tokens that each row has `behind` more of, in single precision."""
    keys, values, tables, lengths = seen
    scaling, window, softcap, sinks = spec
    rows, count, heads, _ = query.shape
    block_size, kv_heads = keys.shape[1:3]
    if lengths.device.type == "cpu":
        tables = tables[:, : -(-int(lengths.max()) // block_size)]
    blocks = torch.arange(tables.shape[1], device=tables.device)
    used = torch.where(blocks * block_size < lengths[:, None], tables, 0)
    places = torch.arange(tables.shape[1] * block_size, device=tables.device)
    k, v = (pages.transpose(1, 2)[used].transpose(1, 2).flatten(2, 3).float() for pages in (keys, values))
    v = v.masked_fill_((places >= lengths[:, None])[:, None, :, None], 0)  # whatever lies there

    # [rows, kv_heads, group * count, ...]: what reads one key head is one product
    q = query.float().view(rows, count, kv_heads, -1, query.shape[3]).permute(0, 2, 3, 1, 4).flatten(2, 3)
    scores = torch.matmul(q, k.transpose(2, 3)).mul_(scaling)
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    positions = lengths[:, None] - (behind + count) + torch.arange(count, device=lengths.device)
    is_seen = places <= positions[..., None]
    if window is not None:
        is_seen &= places > positions[..., None] - window
    group = heads // kv_heads
    unseen = ~is_seen[:, None, None].expand(-1, -1, group, -1, -1).flatten(2, 3)
    scores.masked_fill_(unseen, float("-inf"))

    peak = scores.amax(-1, keepdim=True) if scores.shape[-1] else scores.new_full((*scores.shape[:3], 1), float("-inf"))
    if sinks is not None:
        bias = sinks.float().view(kv_heads, group, 1, 1).expand(-1, -1, count, -1).flatten(1, 2)
        peak = peak.maximum(bias)
    peak = peak.masked_fill(peak == float("-inf"), 0)
    weights = scores.sub_(peak).exp_()
    total = weights.sum(-1, keepdim=True)
    if sinks is not None:
        total += (bias - peak).exp_()
    result = torch.matmul(weights, v).div_(total.masked_fill(total == 0, 1))
    return result.view(rows, kv_heads, group, count, -1).permute(0, 3, 1, 2, 4).flatten(2, 3).to(query.dtype)
