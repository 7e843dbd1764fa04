"""Attention over pages by the Triton kernels: `backend.LayerAttention` says what each function does.

Sizes of tiles come from small tables, not from trials: a trial would cost seconds per shape, and another choice on
another day other bits.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged.contract import Seen
from batchchat.engines.cuda.kernels import why_not

if TYPE_CHECKING:
    from batchchat.engines.cuda.backend import HeadNorms, LayerKind

BLOCK_SIZES = (16, 32, 64, 128, 256)
"""Tokens per block that the kernels read."""
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OPTIONS = {"enable_fp_fusion": True}
"""For the compiler, whose default changes."""
_QUERY_BYTES = 1 << 15
"""Of the largest tile of queries: with the keys and values beside it, it fits the shared memory of every device."""
INVARIANT_SPLITS, INVARIANT_LEAST = 16, 256
"""Splits of a row in strict mode, and the fewest keys of one: a row of up to 4,096 tokens is cut every 256."""
_MOST_SPLITS, _LEAST = 32, 128
_PROGRAMS = 512
"""Programs that keep a large device busy, and even out rows of different lengths."""
_LOG2E = 1.4426950408889634
_NO_NORM = -1


class Tiles(NamedTuple):
    """Queries (tokens times heads) and keys of a tile, and how the compiler lays its work out."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


def unsupported(kind: LayerKind) -> str | None:
    if kind.block_size not in BLOCK_SIZES:
        return f"The kernels read blocks of {', '.join(map(str, BLOCK_SIZES))} tokens, not {kind.block_size}."
    if kind.dtype not in DTYPES:
        return f"The kernels compute in float32, bfloat16 and float16, not {kind.dtype}."
    if not 1 <= min(kind.key_dim, kind.value_dim) <= max(kind.key_dim, kind.value_dim) <= 256:
        return f"The kernels take heads of up to 256 numbers, not {max(kind.key_dim, kind.value_dim)}."
    most = most_folded(kind.key_dim, kind.value_dim, kind.dtype)
    if kind.heads % kind.kv_heads or kind.heads // kind.kv_heads > most:
        return f"The kernels cannot share {kind.kv_heads} key heads among {kind.heads} query heads."
    return why_not(kind.device)


def write(
    key: torch.Tensor, value: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor
) -> None:
    _write(None, key, value, None, None, keys, values, slots, False, None)


def rotate_and_write(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cosines: torch.Tensor,
    sines: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    interleaved: bool = False,
    norms: HeadNorms | None = None,
) -> torch.Tensor:
    query = _dense(query)
    out = query.new_empty(query.shape)
    _write((query, out), key, value, cosines, sines, keys, values, slots, interleaved, norms)
    return out


def decode(
    query: torch.Tensor,
    seen: Seen,
    spec: AttentionSpec,
    *,
    batch_invariant: bool = False,
) -> torch.Tensor:
    keys, values, tables, lengths = seen
    scaling, window, softcap, sinks = spec
    rows, (tokens, heads, key_dim) = tables.shape[0], query.shape
    if not tokens:
        return query.new_empty(0, heads, values.shape[3])
    count, kv_heads, value_dim = tokens // rows, keys.shape[2], values.shape[3]
    group = heads // kv_heads
    if count * group > most_folded(key_dim, value_dim, query.dtype) // 2:  # which then are worth a tile of their own
        starts = torch.arange(0, tokens + 1, count, dtype=torch.int32, device=query.device)
        return prefill(query, seen, starts, spec, batch_invariant=batch_invariant)
    from batchchat.engines.cuda.kernels import decode as kernels

    query = _dense(query)
    tiles = decode_tiles(count * group, key_dim, value_dim, query.dtype)
    span = tables.shape[1] * keys.shape[1]
    if window is not None:
        span = min(span, window + count + tiles.block_n)
    least = INVARIANT_LEAST if batch_invariant else _LEAST
    splits = INVARIANT_SPLITS if batch_invariant else _splits(rows * kv_heads)
    launched = min(splits, -(-span // least))
    joined = batch_invariant or launched > 1
    out = query.new_empty(tokens, heads, value_dim)
    parts = logs = None
    if joined:
        parts = torch.empty(tokens, heads, splits, value_dim, dtype=torch.float32, device=query.device)
        logs = torch.empty(tokens, heads, splits, dtype=torch.float32, device=query.device)
    inner, outer = _scales(scaling, softcap)
    flags = {"WINDOW": window is not None, "SINKS": sinks is not None}
    with _on(query):
        kernels.decode[rows, kv_heads, launched](
            out,
            parts,
            logs,
            query,
            keys,
            values,
            tables,
            lengths,
            sinks,
            *out.stride()[:2],
            *query.stride()[:2],
            *keys.stride()[:3],
            *values.stride()[:3],
            tables.stride(0),
            count,
            splits,
            inner,
            outer,
            window or 0,
            GROUP=group,
            **_dims(keys, values, tiles),
            LEAST=least,
            JOINED=joined,
            SOFTCAP=softcap is not None,
            **flags,
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
            **OPTIONS,
        )
        if joined:
            kernels.join[tokens, heads](
                out,
                parts,
                logs,
                lengths,
                sinks,
                *out.stride()[:2],
                count,
                window or 0,
                VALUE_DIM=value_dim,
                BLOCK_N=tiles.block_n,
                BLOCK_V=_power(value_dim),
                SPLITS=splits,
                LEAST=least,
                **flags,
                num_warps=2,
                **OPTIONS,
            )
    return out


def prefill(
    query: torch.Tensor,
    seen: Seen,
    starts: torch.Tensor,
    spec: AttentionSpec,
    *,
    batch_invariant: bool = False,  # a row's tiles are its own in any mode
) -> torch.Tensor:
    from batchchat.engines.cuda.kernels import prefill as kernels

    query = _dense(query)
    keys, values, tables, lengths = seen
    scaling, window, softcap, sinks = spec
    rows, (tokens, heads, key_dim) = tables.shape[0], query.shape
    kv_heads, value_dim = keys.shape[2], values.shape[3]
    group = heads // kv_heads
    tiles = prefill_tiles(group, key_dim, value_dim, query.dtype)
    out = query.new_empty(tokens, heads, value_dim)
    if not tokens or not rows:
        return out.zero_()
    inner, outer = _scales(scaling, softcap)
    with _on(query):
        kernels.prefill[tokens // (tiles.block_m // group) + rows + 1, kv_heads](
            out,
            query,
            keys,
            values,
            tables,
            lengths,
            starts,
            sinks,
            *out.stride()[:2],
            *query.stride()[:2],
            *keys.stride()[:3],
            *values.stride()[:3],
            tables.stride(0),
            rows,
            tokens,
            inner,
            outer,
            window or 0,
            GROUP=group,
            **_dims(keys, values, tiles),
            WINDOW=window is not None,
            SOFTCAP=softcap is not None,
            SINKS=sinks is not None,
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
            **OPTIONS,
        )
    return out


def most_folded(key_dim: int, value_dim: int, dtype: torch.dtype) -> int:
    """Tokens times heads of a group that one tile of queries takes."""
    return min(128, _QUERY_BYTES // (_power(max(key_dim, value_dim)) * dtype.itemsize))


def decode_tiles(folded: int, key_dim: int, value_dim: int, dtype: torch.dtype) -> Tiles:
    """For `folded` queries of one row and key head: keys and values by 16 KB each. More stages leave room for fewer
    programs at a time, which take longer than deeper ones save."""
    numbers = _power(max(key_dim, value_dim))
    block_n = max(16, min(64, 16384 // (numbers * dtype.itemsize)))
    block_m = max(16, _power(folded))
    return Tiles(block_m, block_n, 8 if block_m >= 128 else 4, 2)


def prefill_tiles(group: int, key_dim: int, value_dim: int, dtype: torch.dtype) -> Tiles:
    wide = _power(max(key_dim, value_dim)) > 128
    if dtype.itemsize > 2:
        return Tiles(max(16 if wide else 32, _power(group)), 16 if wide else 32, 4, 1)
    block_m = max(64 if wide else 128, _power(group))
    return Tiles(block_m, 32 if wide else 64, 8, 2 if wide else 3)


def _write(
    queries: tuple[torch.Tensor, torch.Tensor] | None,
    key: torch.Tensor,
    value: torch.Tensor,
    cosines: torch.Tensor | None,
    sines: torch.Tensor | None,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    interleaved: bool,
    norms: HeadNorms | None,
) -> None:
    from batchchat.engines.cuda.kernels import write as kernels

    if not len(key):
        return
    key, value = _dense(key), _dense(value)
    query, out = queries or (key, key)  # which then are not touched
    cosines, sines = (slots, slots) if cosines is None or sines is None else (cosines, sines.expand_as(cosines))
    half = cosines.shape[1] if cosines is not slots else 0
    angles = cosines.stride() if half else (0, 0)
    if half and sines.stride() != angles:
        sines = torch.empty_strided(cosines.shape, angles, dtype=sines.dtype, device=sines.device).copy_(sines)
    heads, kv_heads = query.shape[1], key.shape[1]
    query_weight, key_weight, epsilon, form = norms or (slots, slots, 0.0, _NO_NORM)
    with _on(key):
        kernels.write[len(key), 3 if queries else 2](
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
            *query.stride()[:2],
            *key.stride()[:2],
            *value.stride()[:2],
            *angles,
            *keys.stride()[:3],
            *values.stride()[:3],
            heads,
            kv_heads,
            epsilon,
            NORM=form,
            DIM=keys.shape[3],
            VALUE_DIM=values.shape[3],
            HALF=half,
            INTERLEAVED=interleaved,
            BLOCK_SIZE=keys.shape[1],
            BLOCK_H=min(32, _power(heads)),
            BLOCK_KV=min(32, _power(kv_heads)),
            BLOCK_HALF=_power(max(half, 1)),
            BLOCK_D=_power(keys.shape[3]),
            BLOCK_V=_power(values.shape[3]),
            num_warps=4,
            **OPTIONS,
        )


def _splits(lanes: int) -> int:
    """Splits of each row where `lanes` programs run without: a power of two, by shapes alone."""
    return min(_MOST_SPLITS, _power(-(-_PROGRAMS // lanes)))


def _scales(scaling: float, softcap: float | None) -> tuple[float, float]:
    """Scores in powers of two: a product times the first, or, soft-capped, the second times the tanh of half of it."""
    if softcap is None:
        return scaling * _LOG2E, 0.0
    return 2 * scaling / softcap * _LOG2E, softcap * _LOG2E


def _dims(keys: torch.Tensor, values: torch.Tensor, tiles: Tiles) -> dict[str, int]:
    key_dim, value_dim = keys.shape[3], values.shape[3]
    return {
        "DIM": key_dim,
        "VALUE_DIM": value_dim,
        "BLOCK_SIZE": keys.shape[1],
        "BLOCK_M": tiles.block_m,
        "BLOCK_N": tiles.block_n,
        "BLOCK_D": max(16, _power(key_dim)),
        "BLOCK_V": max(16, _power(value_dim)),
    }


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


def _on(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Kernels are launched on the current device, which must be the tensors' own."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
