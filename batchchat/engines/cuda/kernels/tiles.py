"""What the attention kernels share: one tile of queries against the keys of one row, read page by page.

Source: https://arxiv.org/abs/2205.14135 (tiles and the running maximum), https://arxiv.org/abs/2309.06180 (pages)
"""

from __future__ import annotations

import triton
import triton.language as tl

_LOG2E = tl.constexpr(1.4426950408889634)
_NOTHING = tl.constexpr(float("-inf"))


@triton.jit
def attend(
    q,
    positions,
    begin,
    end,
    peak,
    total,
    acc,
    keys,
    values,
    table,
    key_block,
    key_token,
    value_block,
    value_token,
    inner,
    outer,
    window,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    MASKED: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
):
    """Take the keys at places `[begin, end)` of a row into a softmax that is under way; `begin` is a multiple of
    `BLOCK_N`.

    `q` `[BLOCK_M, BLOCK_D]`, of the tokens at `positions` `[BLOCK_M]`. `keys` and `values` point at the head's page 0,
    `table` at the row's block table. `peak` and `total` `[BLOCK_M]` are the largest score and the sum of the weights so
    far, in powers of two, `acc` `[BLOCK_M, BLOCK_V]` the weighted values. Nothing behind `end` is read, so that it does
    not matter what lies there. Without `MASKED` all of `[begin, end)` is seen, and both are multiples of `BLOCK_N`.
    """
    dims = tl.arange(0, BLOCK_D)
    value_dims = tl.arange(0, BLOCK_V)
    lanes = tl.arange(0, BLOCK_N)
    for start in range(begin, end, BLOCK_N):
        places = start + lanes
        if BLOCK_SIZE >= BLOCK_N:  # a tile lies within one block
            block = tl.load(table + start // BLOCK_SIZE).to(tl.int64)
            inside = start % BLOCK_SIZE + lanes
            key_rows = keys + block * key_block + inside * key_token
            value_rows = values + block * value_block + inside * value_token
        else:
            blocks = tl.load(table + places // BLOCK_SIZE, mask=places < end, other=0).to(tl.int64)
            inside = places % BLOCK_SIZE
            key_rows = keys + blocks * key_block + inside * key_token
            value_rows = values + blocks * value_block + inside * value_token

        if MASKED:
            k_mask = (dims < DIM)[:, None] & (places < end)[None, :]
            k = tl.load(key_rows[None, :] + dims[:, None], mask=k_mask, other=0.0)
        elif BLOCK_D != DIM:
            k = tl.load(key_rows[None, :] + dims[:, None], mask=(dims < DIM)[:, None], other=0.0)
        else:
            k = tl.load(key_rows[None, :] + dims[:, None])

        scores = tl.dot(q, k, input_precision="tf32x3") * inner
        if SOFTCAP:  # outer * tanh(x), where scores are 2x in powers of two
            scores = outer * (1.0 - 2.0 / (tl.exp2(scores) + 1.0))
        if MASKED:
            seen = places[None, :] <= positions[:, None]
            if WINDOW:
                seen = seen & (places[None, :] > positions[:, None] - window)
            scores = tl.where(seen, scores, _NOTHING)

        higher = tl.maximum(peak, tl.max(scores, 1))
        base = tl.where(higher == _NOTHING, 0.0, higher)  # of a query that has seen no key yet
        weights = tl.exp2(scores - base[:, None])
        fade = tl.exp2(peak - base)
        total = total * fade + tl.sum(weights, 1)
        peak = higher

        if MASKED:
            v_mask = (places < end)[:, None] & (value_dims < VALUE_DIM)[None, :]
            v = tl.load(value_rows[:, None] + value_dims[None, :], mask=v_mask, other=0.0)
        elif BLOCK_V != VALUE_DIM:
            v = tl.load(value_rows[:, None] + value_dims[None, :], mask=(value_dims < VALUE_DIM)[None, :], other=0.0)
        else:
            v = tl.load(value_rows[:, None] + value_dims[None, :])
        acc = tl.dot(weights.to(v.dtype), v, acc * fade[:, None], input_precision="tf32x3")
    return peak, total, acc


@triton.jit
def finish(peak, total, acc, sinks, heads, used, SINKS: tl.constexpr):
    """The weighted mean of the values, `[BLOCK_M, BLOCK_V]`; 0 for a query that has seen no key. `sinks` points at a
    score per head that takes part and brings no value; `heads` `[BLOCK_M]`, of which those `used` are real."""
    if SINKS:
        sink = tl.load(sinks + heads, mask=used, other=0.0).to(tl.float32) * _LOG2E
        base = tl.maximum(peak, sink)
        fade = tl.exp2(peak - base)
        total = total * fade + tl.exp2(sink - base)
        acc = acc * fade[:, None]
    return acc / tl.where(total == 0.0, 1.0, total)[:, None]
