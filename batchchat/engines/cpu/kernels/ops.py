"""The kernels as functions of tensors: on the CPU, in single precision, bfloat16 or float16."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from batchchat.engines.cpu.kernels import abi, layouts
from batchchat.engines.cpu.kernels.processor import Registers, features, registers
from batchchat.engines.cpu.kernels.threads import Kernel

if TYPE_CHECKING:
    from batchchat.engines.continuous.attention_spec import AttentionSpec
    from batchchat.engines.continuous.batch import Pass

STORED = {torch.float32: np.float32, torch.bfloat16: np.uint16}
"""What kernels see numbers as: see `source.code`. Those of float16 need a processor that widens them."""
if "f16c" in features():
    STORED[torch.float16] = np.int16
_COMMON = (32, 64, 80, 96, 128, 256)
"""Sizes of heads that have attention of their own; all others share one."""
NO_WINDOW = 1 << 40
WORTH_SHARING = 1 << 14
"""Numbers from which on a norm or a gate is divided among threads."""
_NO_VALUES = dict.fromkeys(("value_heads", "value", "value_token", "value_head", "value_target", "value_dim"), 0)
"""Beside the heads that are turned."""


def attention_kernel(key_dim: int, value_dim: int, dtype: torch.dtype) -> Kernel:
    common = key_dim in _COMMON and value_dim in _COMMON  # worth seconds of compiling
    return _attention_kernel(dtype, (key_dim, value_dim) if common else None)


@cache
def _attention_kernel(dtype: torch.dtype, sizes: tuple[int, int] | None) -> Kernel:
    return Kernel("attention.attention", STORED[dtype], dtype.itemsize, sizes)


@cache
def writing_kernel(dtype: torch.dtype) -> Kernel:
    return Kernel("attention.writing", STORED[dtype], dtype.itemsize)


@cache
def norm_kernel(dtype: torch.dtype, form: int) -> Kernel:
    return Kernel("code.norm", STORED[dtype], dtype.itemsize, form)


@cache
def add_kernel(dtype: torch.dtype) -> Kernel:
    return Kernel("code.add", STORED[dtype], dtype.itemsize)


@cache
def gate_kernel(dtype: torch.dtype, form: int) -> Kernel:
    return Kernel("code.gate", STORED[dtype], dtype.itemsize, form)


@cache
def rotary_kernel(dtype: torch.dtype, tables: torch.dtype) -> Kernel:
    return Kernel("code.rotary", STORED[dtype], dtype.itemsize, STORED[tables], tables.itemsize)


def bits(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def write_kv(current: Pass, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
    """Write the keys and values `[1, heads, tokens, dim]` of a pass's plan into their slots."""
    key, value = (tensor if tensor.stride(3) == 1 else tensor.contiguous() for tensor in (key, value))
    plan, _ = current.plan
    block = abi.block(
        abi.WRITE_KV,
        rows=len(plan),
        heads=key.shape[1],
        key=key.data_ptr(),
        key_token=key.stride(2),
        key_head=key.stride(1),
        value=value.data_ptr(),
        value_token=value.stride(2),
        value_head=value.stride(1),
        plan=plan.ctypes.data,
        bases=_bases(current, layer).ctypes.data,
        key_dim=key.shape[3],
        value_dim=value.shape[3],
    )
    writing_kernel(key.dtype)(*block, shared=key.numel() >= WORTH_SHARING)


def attend_rows(current: Pass, layer: int, query: torch.Tensor, out: torch.Tensor, spec: AttentionSpec) -> None:
    """Write the attention of a pass's plan, whose keys and values are in their slots, into its tokens of `out`
    `[tokens, heads, value_dim]`. `query` is `[1, heads, tokens, dim]`."""
    query = query if query.stride(3) == 1 else query.contiguous()
    plan, pools = current.plan
    heads, key_dim, value_dim = pools[0].keys[layer].shape[1], query.shape[3], out.shape[2]
    block = abi.block(
        abi.ATTENTION,
        rows=len(plan),
        heads=heads,
        query=query.data_ptr(),
        query_token=query.stride(2),
        query_head=query.stride(1),
        out=out.data_ptr(),
        out_token=out.stride(0),
        scaling=bits(spec.scaling),
        softcap=0 if spec.softcap is None else bits(spec.softcap),
        window=NO_WINDOW if spec.window is None else spec.window,
        plan=plan.ctypes.data,
        bases=_bases(current, layer).ctypes.data,
        sinks=0 if spec.sinks is None else spec.sinks.data_ptr(),
        shared=query.shape[1] // heads,
        key_dim=key_dim,
        value_dim=value_dim,
    )
    attention_kernel(key_dim, value_dim, query.dtype)(*block)


def _bases(current: Pass, layer: int) -> np.ndarray:
    """Where the keys and values of each of a pass's pools lie."""
    if layer not in current.bases:
        places = [(pool.keys[layer].data_ptr(), pool.values[layer].data_ptr()) for pool in current.plan[1]]
        current.bases[layer] = np.array(places, dtype=np.int64)
    return current.bases[layer]


def rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float, form: int) -> torch.Tensor:
    """`x` `[..., size]` divided by the root of its mean square, times `weight` `[size]`; `form` is one of `abi.FORMS`.

    Source: https://arxiv.org/abs/1910.07467
    """
    rows = x.reshape(-1, x.shape[-1])
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype)
    block = abi.block(
        abi.NORM,
        rows=rows.shape[0],
        size=rows.shape[1],
        source=rows.data_ptr(),
        stride=rows.stride(0),
        weight=weight.data_ptr(),
        target=out.data_ptr(),
        epsilon=bits(epsilon),
        added=0,
        times=bits(1.0),
        group=1,
        group_stride=rows.stride(0),
    )
    norm_kernel(x.dtype, form)(*block, shared=x.numel() >= WORTH_SHARING)
    return out


class Gate(NamedTuple):
    """How one half of numbers opens for the other: one of `abi.GATES`, and the numbers that it takes."""

    form: int
    limit: float = 0.0
    alpha: float = 0.0


def gated(joined: torch.Tensor, gate: Gate) -> torch.Tensor:
    """The first half of `joined` `[..., 2 * size]` by a gate, times its second half.

    Source: https://arxiv.org/abs/2002.05202
    """
    joined = joined.contiguous()
    size = joined.shape[-1] // 2
    out = joined.new_empty(*joined.shape[:-1], size)
    block = abi.block(
        abi.GATE,
        rows=joined.numel() // max(1, 2 * size),
        size=size,
        source=joined.data_ptr(),
        target=out.data_ptr(),
        limit=bits(gate.limit),
        alpha=bits(gate.alpha),
    )
    gate_kernel(joined.dtype, gate.form)(*block, shared=joined.numel() >= WORTH_SHARING)
    return out


def rotate(
    query: torch.Tensor, key: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary position embedding of `query` and `key` `[1, heads, tokens, dim]` by halves of their first numbers, as
    many as `cosines` and `sines` `[1, tokens, turned]` have.

    Source: https://arxiv.org/abs/2104.09864
    """
    tokens, dim = query.shape[2:]
    cosines, sines = cosines.contiguous(), sines.contiguous()
    sources = [tensor if tensor.stride(3) == 1 else tensor.contiguous() for tensor in (query, key)]
    turned = [tensor.new_empty(1, tokens, tensor.shape[1], dim) for tensor in sources]
    heads = {
        f"{name}{word}": value
        for name, source, out in zip(("query", "key"), sources, turned, strict=True)
        for word, value in (
            ("_heads", source.shape[1]),
            ("", source.data_ptr()),
            ("_token", source.stride(2)),
            ("_head", source.stride(1)),
            ("_target", out.data_ptr()),
        )
    }
    block = abi.block(
        abi.ROTARY,
        tokens=tokens,
        half=cosines.shape[2] // 2,
        dim=dim,
        cosines=cosines.data_ptr(),
        sines=sines.data_ptr(),
        table_stride=cosines.shape[2],
        **heads,
        **_NO_VALUES,
    )
    rotary_kernel(query.dtype, cosines.dtype)(*block, shared=query.numel() + key.numel() >= WORTH_SHARING)
    return turned[0].transpose(1, 2), turned[1].transpose(1, 2)


@cache
def tiled_kernel() -> Kernel:
    return Kernel("tiles.product")


def tiled_product(rows: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`rows` `[..., size]` times a weight `[outputs, size]` laid out by `layouts.pack_tiles`, plus `bias`
    `[outputs]`."""
    outputs, size = packed.shape
    flat = rows.reshape(-1, size).contiguous()
    count, flat = len(flat), layouts.filled_up(flat)
    out = rows.new_empty(*rows.shape[:-1], outputs)
    tiled_kernel()(*product_block(count, packed.shape, flat.data_ptr(), packed, out.data_ptr(), bias))
    return out


@cache
def _registers() -> Registers:
    found = registers()
    assert found is not None, "`kernels.widens` says where there are none"
    return found


@cache
def widened_kernel(dtype: torch.dtype, held: torch.dtype) -> Kernel:
    """For rows and results of a type, and weights held in another one, or the same."""
    return Kernel("widening.product", STORED[dtype], dtype.itemsize, held, *_registers())


def widened_weight(weight: torch.Tensor) -> torch.Tensor:
    """A weight `[outputs, size]` in the order in which `widened_kernel` reads it."""
    return layouts.pack_panels(weight, _registers().panel)


def product_block(
    rows: int, shape: torch.Size, source: int, weight: torch.Tensor, target: int, bias: torch.Tensor | None
) -> list[int]:
    """The parameters of these products' kernels: the number and address of rows, the weight's shape `[outputs, size]`
    and the weight as it is packed, the results' address, and the bias `[outputs]`."""
    return abi.block(
        abi.WEIGHTED,
        rows=rows,
        size=shape[1],
        outputs=shape[0],
        source=source,
        weight=weight.data_ptr(),
        target=target,
        bias=0 if bias is None else bias.data_ptr(),
    )
