"""Attention of a few tokens per row, split over the row's keys, and the kernel that joins the parts.

Source: https://pytorch.org/blog/flash-decoding/
"""

from __future__ import annotations

import triton
import triton.language as tl

from batchchat.engines.cuda.kernels.tiles import attend, finish

_LOG2E = tl.constexpr(1.4426950408889634)
_NOTHING = tl.constexpr(float("-inf"))


@triton.jit
def share_of(length, count, splits, window, LEAST: tl.constexpr, BLOCK_N: tl.constexpr, WINDOW: tl.constexpr):
    """Where the keys begin that a row's tokens see, and how many of them one split takes: `length` decides, and nothing
    else of the batch."""
    first = length * 0
    if WINDOW:
        first = tl.maximum(length - count + 1 - window, 0) // BLOCK_N * BLOCK_N
    share = tl.cdiv(tl.cdiv(length - first, splits), BLOCK_N) * BLOCK_N
    return first, tl.maximum(share, LEAST)


@triton.jit(
    do_not_specialize=["count", "splits", "window", "table_row"],
    do_not_specialize_on_alignment=["tables", "lengths"],
)
def decode(
    out,
    parts,
    part_weights,
    query,
    keys,
    values,
    tables,
    lengths,
    sinks,
    out_token,
    out_head,
    query_token,
    query_head,
    key_block,
    key_token,
    key_head,
    value_block,
    value_token,
    value_head,
    table_row,
    count,
    splits,
    inner,
    outer,
    window,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    LEAST: tl.constexpr,
    JOINED: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Program `(row, key head, split)`: the `count` tokens of a row, times the `GROUP` heads that share a key head,
    against one split of the row's keys. With `JOINED` its result is one of `splits` parts, which `join` takes."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    split = tl.program_id(2)
    length = tl.load(lengths + row)
    first, share = share_of(length, count, splits, window, LEAST, BLOCK_N, WINDOW)
    begin = first + split * share
    if (split > 0) & (begin >= length):
        return

    places = tl.arange(0, BLOCK_M)
    used = places < count * GROUP
    tokens = row.to(tl.int64) * count + places // GROUP
    heads = head * GROUP + places % GROUP
    positions = tl.where(used, length - count + places // GROUP, -1)
    dims = tl.arange(0, BLOCK_D)
    q_mask = used[:, None] & (dims < DIM)[None, :]
    q_rows = query + tokens * query_token + heads * query_head
    q = tl.load(q_rows[:, None] + dims[None, :], mask=q_mask, other=0.0)

    peak = tl.full([BLOCK_M], _NOTHING, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    peak, total, acc = attend(
        q,
        positions,
        begin,
        tl.minimum(begin + share, length),
        peak,
        total,
        acc,
        keys + head.to(tl.int64) * key_head,
        values + head.to(tl.int64) * value_head,
        tables + row.to(tl.int64) * table_row,
        key_block,
        key_token,
        value_block,
        value_token,
        inner,
        outer,
        window,
        DIM,
        VALUE_DIM,
        BLOCK_SIZE,
        BLOCK_N,
        BLOCK_D,
        BLOCK_V,
        True,
        WINDOW,
        SOFTCAP,
    )

    value_dims = tl.arange(0, BLOCK_V)
    mask = used[:, None] & (value_dims < VALUE_DIM)[None, :]
    if JOINED:
        result = finish(peak, total, acc, sinks, heads, used, False)
        slots = (tokens * (tl.num_programs(1) * GROUP) + heads) * splits + split
        log = tl.where(total == 0.0, _NOTHING, peak + tl.log2(tl.where(total == 0.0, 1.0, total)))
        tl.store(part_weights + slots, log, mask=used)
        tl.store(parts + slots[:, None] * VALUE_DIM + value_dims[None, :], result, mask=mask)
    else:
        result = finish(peak, total, acc, sinks, heads, used, SINKS)
        out_rows = out + tokens * out_token + heads * out_head
        tl.store(out_rows[:, None] + value_dims[None, :], result.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["count", "window"], do_not_specialize_on_alignment=["lengths"])
def join(
    out,
    parts,
    part_weights,
    lengths,
    sinks,
    out_token,
    out_head,
    count,
    window,
    VALUE_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_V: tl.constexpr,
    SPLITS: tl.constexpr,
    LEAST: tl.constexpr,
    WINDOW: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Program `(token, head)`: the mean of the parts of all splits, weighted by the sums of their weights, whose
    logarithms to base 2 are `part_weights` `[tokens, heads, SPLITS]`; `parts` `[tokens, heads, SPLITS, VALUE_DIM]`."""
    token = tl.program_id(0)
    head = tl.program_id(1)
    length = tl.load(lengths + token // count)
    first, share = share_of(length, count, SPLITS, window, LEAST, BLOCK_N, WINDOW)
    splits = tl.arange(0, SPLITS)
    there = (splits == 0) | (first + splits * share < length)
    slots = (token.to(tl.int64) * tl.num_programs(1) + head) * SPLITS + splits
    logs = tl.load(part_weights + slots, mask=there, other=_NOTHING)
    base = tl.max(logs, 0)
    if SINKS:
        sink = tl.load(sinks + head).to(tl.float32) * _LOG2E
        base = tl.maximum(base, sink)
    base = tl.where(base == _NOTHING, 0.0, base)
    weights = tl.exp2(logs - base)
    total = tl.sum(weights, 0)
    if SINKS:
        total += tl.exp2(sink - base)
    dims = tl.arange(0, BLOCK_V)
    mask = there[:, None] & (dims < VALUE_DIM)[None, :]
    part = tl.load(parts + slots[:, None] * VALUE_DIM + dims[None, :], mask=mask, other=0.0)
    result = tl.sum(part * weights[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    target = out + token.to(tl.int64) * out_token + head * out_head + dims
    tl.store(target, result.to(out.dtype.element_ty), mask=dims < VALUE_DIM)
