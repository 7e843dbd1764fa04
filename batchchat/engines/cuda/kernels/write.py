"""Queries and keys normed and turned by their positions, and keys and values written into their pages, in one launch.

Source: https://arxiv.org/abs/2104.09864
"""

from __future__ import annotations

import triton
import triton.language as tl

from batchchat.engines.cuda.kernels.rows import scaled


@triton.jit
def _rotate(
    source,
    target,
    source_head,
    target_head,
    cosines,
    sines,
    angle_stride,
    weight,
    epsilon,
    heads,
    NORM: tl.constexpr,
    DIM: tl.constexpr,
    HALF: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Write a token's `heads` vectors, each normed (unless `NORM` is -1), and the first `2 * HALF` of its numbers
    turned in pairs by the token's angles."""
    dims = tl.arange(0, BLOCK_D)
    for start in range(0, heads, BLOCK_H):
        places = start + tl.arange(0, BLOCK_H)
        sources = source + places[:, None] * source_head
        targets = target + places[:, None] * target_head
        there = (places < heads)[:, None]
        kind = target.dtype.element_ty
        whole = there & (dims < DIM)[None, :]
        size = 1.0
        if NORM >= 0:
            numbers = tl.load(sources + dims[None, :], mask=whole, other=0.0).to(tl.float32)
            size = (1.0 / tl.sqrt(tl.sum(numbers * numbers, 1) / DIM + epsilon))[:, None]
        if DIM > 2 * HALF:
            mask = whole & (dims >= 2 * HALF)[None, :]
            rest = tl.load(sources + dims[None, :], mask=mask, other=0.0)
            if NORM >= 0:
                rest = _normed(rest, size, weight, dims, dims < DIM, kind, NORM).to(kind)
            tl.store(targets + dims[None, :], rest, mask=mask)
        if HALF > 0:
            pairs = tl.arange(0, BLOCK_HALF)
            mask = there & (pairs < HALF)[None, :]
            if INTERLEAVED:
                one = 2 * pairs
                other = 2 * pairs + 1
            else:
                one = pairs
                other = pairs + HALF
            cosine = tl.load(cosines + pairs * angle_stride, mask=pairs < HALF, other=0.0).to(tl.float32)[None, :]
            sine = tl.load(sines + pairs * angle_stride, mask=pairs < HALF, other=0.0).to(tl.float32)[None, :]
            x = tl.load(sources + one[None, :], mask=mask, other=0.0).to(tl.float32)
            y = tl.load(sources + other[None, :], mask=mask, other=0.0).to(tl.float32)
            if NORM >= 0:
                x = _normed(x, size, weight, one, pairs < HALF, kind, NORM)
                y = _normed(y, size, weight, other, pairs < HALF, kind, NORM)
            tl.store(targets + one[None, :], (x * cosine - y * sine).to(kind), mask=mask)
            tl.store(targets + other[None, :], (y * cosine + x * sine).to(kind), mask=mask)


@triton.jit
def _normed(numbers, size, weight, places, mask, kind: tl.constexpr, NORM: tl.constexpr):
    """Numbers `[heads, places]` times the reciprocal of their vector's size and their place's weight, as they would be
    stored between norm and rotation."""
    scale = tl.load(weight + places, mask=mask, other=0.0).to(tl.float32)[None, :]
    return scaled(numbers.to(tl.float32) * size, scale, kind, NORM).to(kind).to(tl.float32)


@triton.jit(do_not_specialize_on_alignment=["slots"])
def write(
    out,
    query,
    key,
    value,
    cosines,
    sines,
    query_weight,
    key_weight,
    keys,
    values,
    slots,
    query_token,
    query_head,
    key_token,
    key_head,
    value_token,
    value_head,
    angle_token,
    angle_stride,
    key_page_block,
    key_page_token,
    key_page_head,
    value_page_block,
    value_page_token,
    value_page_head,
    heads,
    kv_heads,
    epsilon,
    NORM: tl.constexpr,
    DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    HALF: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_H: tl.constexpr,
    BLOCK_KV: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Program `(token, part)`: 0 writes the token's keys, 1 its values, 2 its turned queries, `out` `[tokens, heads,
    DIM]`. A token whose slot is negative has its queries turned, and no keys or values written. `NORM` is a form of
    norm for queries and keys, -1 for none."""
    token = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    slot = tl.load(slots + token)
    block = slot // BLOCK_SIZE
    inside = slot % BLOCK_SIZE
    if part == 2:
        _rotate(
            query + token * query_token,
            out + token * heads * DIM,
            query_head,
            DIM,
            cosines + token * angle_token,
            sines + token * angle_token,
            angle_stride,
            query_weight,
            epsilon,
            heads,
            NORM,
            DIM,
            HALF,
            INTERLEAVED,
            BLOCK_H,
            BLOCK_HALF,
            BLOCK_D,
        )
    if (part == 0) & (slot >= 0):
        _rotate(
            key + token * key_token,
            keys + block * key_page_block + inside * key_page_token,
            key_head,
            key_page_head,
            cosines + token * angle_token,
            sines + token * angle_token,
            angle_stride,
            key_weight,
            epsilon,
            kv_heads,
            NORM,
            DIM,
            HALF,
            INTERLEAVED,
            BLOCK_KV,
            BLOCK_HALF,
            BLOCK_D,
        )
    if (part == 1) & (slot >= 0):
        _rotate(
            value + token * value_token,
            values + block * value_page_block + inside * value_page_token,
            value_head,
            value_page_head,
            cosines,
            sines,
            angle_stride,
            key_weight,
            epsilon,
            kv_heads,
            -1,
            VALUE_DIM,
            0,
            False,
            BLOCK_KV,
            BLOCK_HALF,
            BLOCK_V,
        )
