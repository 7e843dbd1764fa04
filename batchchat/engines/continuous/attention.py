"""Attention of a packed pass over slots, as an attention function that any transformers model can call.

The heads that share a key head are folded into the query length, `[rows * key heads, group, dim]` against
`[rows * key heads, length, dim]`: one batched product per pool reads each key once.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from batchchat.engines.continuous.acceleration import Acceleration
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.batch import DecodeGroup, Pass, PrefillSpan
from batchchat.models.arithmetic import is_multiplied


def attend(
    current: Pass,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    spec: AttentionSpec,
    faster: Acceleration | None = None,
) -> torch.Tensor:
    """Keep the pass's new keys and values `[1, heads, tokens, dim]` in their slots, and attend over those.

    Returns `[1, tokens, heads, value_dim]` for `query` `[1, heads, tokens, dim]`. By `faster` where that does this
    attention.
    """
    queries = query[0].transpose(0, 1)
    out = queries.new_empty(*queries.shape[:2], value.shape[3])
    spans = current.prefilling
    if faster is not None and faster.attends(query, key, value, spec):
        faster.attend(current, layer, query, key, value, out, spec)
        spans = current.long_spans
        _write_spans(spans, layer, key, value)
    else:
        _write_kv(current, layer, key, value)
        for group in current.decoding:
            out[group.first : group.last] = _decode(current, group, layer, queries, spec)
    for span in spans:
        if spec.softcap is None and spec.sinks is None:
            out[span.first : span.last] = _prefill_fused(current, span, layer, query, spec)
        else:
            out[span.first : span.last] = _prefill(current, span, layer, queries, spec)
    out[current.num_tokens :] = 0  # padding, of which nothing may come that is not finite
    return out[None]


def _write_kv(current: Pass, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    for write in current.writes:
        write.pool.keys[layer][write.rows, :, write.places] = keys[write.tokens]
        write.pool.values[layer][write.rows, :, write.places] = values[write.tokens]


def _write_spans(spans: list[PrefillSpan], layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
    """The same for some spans of many tokens."""
    for span in spans:
        span.pool.keys[layer][span.row, :, span.start : span.end] = key[0, :, span.first : span.last]
        span.pool.values[layer][span.row, :, span.start : span.end] = value[0, :, span.first : span.last]


def _decode(
    current: Pass,
    group: DecodeGroup,
    layer: int,
    queries: torch.Tensor,
    spec: AttentionSpec,
) -> torch.Tensor:
    keys = group.pool.keys[layer][: group.num_rows, :, : group.length]
    values = group.pool.values[layer][: group.num_rows, :, : group.length]
    if current.batch_invariant:  # a product over slices of longer slots may round in another way
        keys, values = keys.contiguous(), values.contiguous()
    rows, heads = keys.shape[:2]
    count, shared = group.count, queries.shape[1] // heads
    own = queries[group.first : group.last].view(-1, count, heads, shared, queries.shape[2])
    if group.rows is not None:
        spread = own.new_zeros(rows, *own.shape[1:])
        spread[group.rows] = own
        own = spread
    folded = own.permute(0, 2, 3, 1, 4).reshape(rows * heads, shared * count, -1)
    mask = group.mask(spec.window, heads, shared, queries.dtype)
    per_query = None if spec.sinks is None else _fold(spec.sinks, heads, rows, count)
    out = _weigh(folded, keys.flatten(0, 1), values.flatten(0, 1), mask, spec, per_query)
    out = out.view(rows, heads, shared, count, -1).permute(0, 3, 1, 2, 4)
    out = out if group.rows is None else out[group.rows]
    return out.reshape(-1, heads * shared, out.shape[-1])


def _prefill(
    current: Pass,
    span: PrefillSpan,
    layer: int,
    queries: torch.Tensor,
    spec: AttentionSpec,
) -> torch.Tensor:
    keys = span.pool.keys[layer][span.row, :, : span.length]
    values = span.pool.values[layer][span.row, :, : span.length]
    if current.batch_invariant:
        keys, values = keys.contiguous(), values.contiguous()
    heads = keys.shape[0]
    own = queries[span.first : span.last]
    count, group = own.shape[0], own.shape[1] // heads
    folded = own.view(count, heads, group, -1).permute(1, 2, 0, 3).reshape(heads, group * count, -1)
    per_query = (
        None if spec.sinks is None else spec.sinks.view(heads, group, 1).expand(-1, -1, count).reshape(heads, -1, 1)
    )
    mask = span.bias(spec.window, queries.dtype).repeat(group, 1)
    out = _weigh(folded, keys, values, mask, spec, per_query)
    return out.view(heads, group, count, -1).permute(2, 0, 1, 3).reshape(count, heads * group, -1)


def _prefill_fused(
    current: Pass, span: PrefillSpan, layer: int, query: torch.Tensor, spec: AttentionSpec
) -> torch.Tensor:
    """The same through torch's own fused kernel: key heads as the batch, so that no key is repeated. In single
    precision where numbers of 16 bits would be multiplied one by one."""
    keys = span.pool.keys[layer][span.row, :, None, : span.length]
    values = span.pool.values[layer][span.row, :, None, : span.length]
    if current.batch_invariant:
        keys, values = keys.contiguous(), values.contiguous()
    heads, count = keys.shape[0], span.last - span.first
    own = query[0, :, span.first : span.last]
    own = own.reshape(heads, own.shape[0] // heads, count, -1)
    group = own.shape[1]
    simple = span.start == 0 and (spec.window is None or spec.window >= span.end)
    if own.device.type == "cpu" and not is_multiplied(str(own.dtype).removeprefix("torch.")):
        own, keys, values = own.float(), keys.float(), values.float()
    out = functional.scaled_dot_product_attention(
        own,
        keys.expand(-1, group, -1, -1),
        values.expand(-1, group, -1, -1),
        attn_mask=None if simple else span.seen(spec.window),
        is_causal=simple,
        scale=spec.scaling,
    )
    return out.to(query.dtype).flatten(0, 1).transpose(0, 1)


def _fold(sinks: torch.Tensor, heads: int, rows: int, count: int) -> torch.Tensor:
    """Sinks `[heads * shared]` as a column for folded queries, `[rows * heads, shared * count, 1]`."""
    spread = sinks.view(1, heads, -1, 1).expand(rows, -1, -1, count)
    return spread.reshape(rows * heads, -1, 1)


def _weigh(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    mask: torch.Tensor,
    spec: AttentionSpec,
    sinks: torch.Tensor | None,
) -> torch.Tensor:
    """Softmax-weighted values: queries `[batch, n, dim]`, keys and values `[batch, length, dim]`; `sinks` as scores
    `[batch, n, 1]`.

    The mask, 0 where a key is seen and -inf where not, is added to the scores."""
    if spec.softcap is None:
        scores = torch.baddbmm(mask, queries, keys.transpose(1, 2), alpha=spec.scaling)
    else:
        scores = torch.bmm(queries, keys.transpose(1, 2)) * (spec.scaling / spec.softcap)
        scores = scores.tanh_().mul_(spec.softcap).add_(mask)
    if sinks is None:
        weights = torch.softmax(scores, dim=-1)
    else:
        joined = torch.cat((scores, sinks.to(scores.dtype)), dim=-1)
        weights = torch.softmax(joined, dim=-1, dtype=torch.float32)[..., :-1].to(scores.dtype)
    return torch.bmm(weights, values)
