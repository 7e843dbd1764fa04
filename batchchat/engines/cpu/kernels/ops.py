"""The kernels as functions of tensors: on the CPU, in single precision or bfloat16."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from batchchat.engines.cpu.kernels import attention, code, tiles
from batchchat.engines.cpu.kernels.threads import Kernel

if TYPE_CHECKING:
    from batchchat.engines.continuous.attention_spec import Scoring
    from batchchat.engines.continuous.batch import Pass

STORED = {torch.float32: np.float32, torch.bfloat16: np.uint16}
_COMMON = (32, 64, 80, 96, 128, 256)
"""Sizes of heads that have attention of their own; all others share one."""
NO_WINDOW = 1 << 40
WORTH_SHARING = 1 << 14
"""Numbers from which on a norm or a gate is divided among threads."""
_NO_VALUES = (0, 0, 0, 0, 0, 0)
"""Beside the heads that are turned."""


def attention_kernel(key_dim: int, value_dim: int, dtype: torch.dtype) -> Kernel:
    common = key_dim in _COMMON and value_dim in _COMMON  # worth seconds of compiling
    return _attention_kernel(dtype, (key_dim, value_dim) if common else None)


@cache
def _attention_kernel(dtype: torch.dtype, sizes: tuple[int, int] | None) -> Kernel:
    return Kernel(attention.attention(STORED[dtype], dtype.itemsize, sizes))


@cache
def keeping_kernel(dtype: torch.dtype) -> Kernel:
    return Kernel(attention.keeping(STORED[dtype], dtype.itemsize))


@cache
def norm_kernel(dtype: torch.dtype, form: int) -> Kernel:
    return Kernel(code.norm(STORED[dtype], dtype.itemsize, form))


@cache
def gate_kernel(dtype: torch.dtype) -> Kernel:
    return Kernel(code.gate(STORED[dtype], dtype.itemsize))


@cache
def rotary_kernel(dtype: torch.dtype) -> Kernel:
    return Kernel(code.rotary(STORED[dtype], dtype.itemsize))


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def keep(current: Pass, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
    """Write the keys and values `[1, heads, tokens, dim]` of a pass's plan into their slots."""
    key, value = (tensor if tensor.stride(3) == 1 else tensor.contiguous() for tensor in (key, value))
    plan, _ = current.plan
    places = ((tensor.data_ptr(), tensor.stride(2), tensor.stride(1)) for tensor in (key, value))
    keeping_kernel(key.dtype)(
        len(plan),
        key.shape[1],
        *itertools.chain.from_iterable(places),
        plan.ctypes.data,
        _bases(current, layer).ctypes.data,
        key.shape[3],
        value.shape[3],
        shared=key.numel() >= WORTH_SHARING,
    )


def attend_rows(current: Pass, layer: int, query: torch.Tensor, out: torch.Tensor, scoring: Scoring) -> None:
    """Write the attention of a pass's plan, whose keys and values are in their slots, into its tokens of `out`
    `[tokens, heads, value_dim]`. `query` is `[1, heads, tokens, dim]`."""
    query = query if query.stride(3) == 1 else query.contiguous()
    plan, pools = current.plan
    heads, key_dim = pools[0].keys[layer].shape[1], query.shape[3]
    attention_kernel(key_dim, out.shape[2], query.dtype)(
        len(plan),
        heads,
        query.data_ptr(),
        query.stride(2),
        query.stride(1),
        out.data_ptr(),
        out.stride(0),
        bits(scoring.scaling),
        NO_WINDOW if scoring.window is None else scoring.window,
        plan.ctypes.data,
        _bases(current, layer).ctypes.data,
        0 if scoring.sinks is None else scoring.sinks.data_ptr(),
        query.shape[1] // heads,
        key_dim,
        out.shape[2],
    )


def _bases(current: Pass, layer: int) -> np.ndarray:
    """Where the keys and values of each of a pass's pools lie."""
    if layer not in current.bases:
        places = [(pool.keys[layer].data_ptr(), pool.values[layer].data_ptr()) for pool in current.plan[1]]
        current.bases[layer] = np.array(places, dtype=np.int64)
    return current.bases[layer]


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float, form: int) -> torch.Tensor:
    """`x` `[..., size]` divided by the root of its mean square, times `weight` `[size]`; `form` is one of `code`'s.

    Source: https://arxiv.org/abs/1910.07467
    """
    rows = x.reshape(-1, x.shape[-1])
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype)
    norm_kernel(x.dtype, form)(
        rows.shape[0],
        rows.shape[1],
        rows.data_ptr(),
        rows.stride(0),
        weight.data_ptr(),
        out.data_ptr(),
        bits(epsilon),
        0,
        1,
        rows.stride(0),
        shared=x.numel() >= WORTH_SHARING,
    )
    return out


def gated(joined: torch.Tensor) -> torch.Tensor:
    """SiLU of the first half of `joined` `[..., 2 * size]`, times its second half.

    Source: https://arxiv.org/abs/2002.05202
    """
    joined = joined.contiguous()
    size = joined.shape[-1] // 2
    out = joined.new_empty(*joined.shape[:-1], size)
    rows = joined.numel() // max(1, 2 * size)
    gate_kernel(joined.dtype)(rows, size, joined.data_ptr(), out.data_ptr(), shared=joined.numel() >= WORTH_SHARING)
    return out


def rotate(
    query: torch.Tensor, key: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary position embedding of `query` and `key` `[1, heads, tokens, dim]` by halves; `cosines` and `sines` are
    `[1, tokens, dim]`.

    Source: https://arxiv.org/abs/2104.09864
    """
    tokens, dim = query.shape[2:]
    cosines, sines = cosines.contiguous(), sines.contiguous()
    sources = [tensor if tensor.stride(3) == 1 else tensor.contiguous() for tensor in (query, key)]
    turned = [tensor.new_empty(1, tokens, tensor.shape[1], dim) for tensor in sources]
    heads = [
        (source.shape[1], source.data_ptr(), source.stride(2), source.stride(1), out.data_ptr())
        for source, out in zip(sources, turned, strict=True)
    ]
    rotary_kernel(query.dtype)(
        tokens,
        dim // 2,
        cosines.data_ptr(),
        sines.data_ptr(),
        dim,
        *heads[0],
        *heads[1],
        *_NO_VALUES,
        shared=query.numel() + key.numel() >= WORTH_SHARING,
    )
    return turned[0].transpose(1, 2), turned[1].transpose(1, 2)


@cache
def tiled_kernel() -> Kernel:
    return Kernel(tiles.product())


def tiled_product(rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`rows` `[..., size]` times a weight `[outputs, size]` that `tiles` packed, plus `bias` `[outputs]`."""
    outputs, size = packed.shape
    flat = rows.reshape(-1, size)
    missing = -len(flat) % tiles.ROWS
    flat = functional.pad(flat, (0, 0, 0, missing)) if missing else flat.contiguous()
    out = rows.new_empty(*rows.shape[:-1], outputs)
    tiled_kernel()(
        len(flat) - missing,
        size,
        outputs,
        flat.data_ptr(),
        packed.data_ptr(),
        out.data_ptr(),
        0 if bias is None else bias.data_ptr(),
        tiles.CONFIG.ctypes.data,
    )
    return out
