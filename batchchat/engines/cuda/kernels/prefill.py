"""Attention of many prompts of different lengths in one launch, over the pages of their rows.

Source: https://arxiv.org/abs/2307.08691
"""

from __future__ import annotations

import triton
import triton.language as tl

from batchchat.engines.cuda.kernels.tiles import attend, finish

_NOTHING = tl.constexpr(float("-inf"))


@triton.jit(
    do_not_specialize=["rows", "num_tokens", "window", "table_row"],
    do_not_specialize_on_alignment=["tables", "lengths", "starts"],
)
def prefill(
    out,
    query,
    keys,
    values,
    tables,
    lengths,
    starts,
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
    rows,
    num_tokens,
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
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    SINKS: tl.constexpr,
):
    """Program `(tile, key head)`: some tokens of one row, times the `GROUP` heads that share a key head.

    A row's tiles are numbered from `starts[row] // TOKENS + row` on, which leaves room for all of them whatever the
    lengths are, so that the grid is decided by the shapes; numbers that no tile has end at once. What lies behind the
    last row is one row more, of padding that sees no key. Tiles count from a row's own first token, so that a row's
    numbers do not depend on the others. The last tiles, which see the most keys, start first.
    """
    TOKENS: tl.constexpr = BLOCK_M // GROUP
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1)
    row = 0
    beyond = rows + 1
    while beyond - row > 1:
        middle = (row + beyond) // 2
        below = tl.load(starts + middle) // TOKENS + middle <= tile
        row = tl.where(below, middle, row)
        beyond = tl.where(below, beyond, middle)
    begin = tl.load(starts + row)
    end = tl.load(starts + row + 1, mask=row < rows, other=num_tokens)
    first = (tile - begin // TOKENS - row) * TOKENS
    if first >= end - begin:
        return

    length = tl.load(lengths + row, mask=row < rows, other=0)
    before = length - (end - begin)
    places = tl.arange(0, BLOCK_M)
    own = first + places // GROUP
    used = (places < TOKENS * GROUP) & (own < end - begin)
    positions = tl.where(used, before + own, -1)
    tokens = (begin + own).to(tl.int64)
    heads = head * GROUP + places % GROUP
    dims = tl.arange(0, BLOCK_D)
    q_mask = used[:, None] & (dims < DIM)[None, :]
    q_rows = query + tokens * query_token + heads * query_head
    q = tl.load(q_rows[:, None] + dims[None, :], mask=q_mask, other=0.0)

    peak = tl.full([BLOCK_M], _NOTHING, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, BLOCK_V], tl.float32)
    seen = tl.maximum(tl.minimum(before + first + TOKENS, length), 0)
    key_pages = keys + head.to(tl.int64) * key_head
    value_pages = values + head.to(tl.int64) * value_head
    table = tables + row.to(tl.int64) * table_row
    if WINDOW:
        masked = tl.maximum(before + first + 1 - window, 0) // BLOCK_N * BLOCK_N
    else:  # what all of the tile's tokens see needs no mask
        masked = tl.maximum(before + first + 1, 0) // BLOCK_N * BLOCK_N
        peak, total, acc = attend(
            q,
            positions,
            0,
            masked,
            peak,
            total,
            acc,
            key_pages,
            value_pages,
            table,
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
            False,
            WINDOW,
            SOFTCAP,
        )
    peak, total, acc = attend(
        q,
        positions,
        masked,
        seen,
        peak,
        total,
        acc,
        key_pages,
        value_pages,
        table,
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
    result = finish(peak, total, acc, sinks, heads, used, SINKS)
    value_dims = tl.arange(0, BLOCK_V)
    out_rows = out + tokens * out_token + heads * out_head
    mask = used[:, None] & (value_dims < VALUE_DIM)[None, :]
    tl.store(out_rows[:, None] + value_dims[None, :], result.to(out.dtype.element_ty), mask=mask)
