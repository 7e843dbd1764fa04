"""Attention over pages by torch's own flash attention, where it takes block tables: `backend.LayerAttention` says what
each function does.

Source: https://docs.pytorch.org/docs/stable/nn.attention.varlen.html
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged.contract import Seen
from batchchat.engines.cuda import gathered

if TYPE_CHECKING:
    from batchchat.engines.cuda.backend import LayerKind

_PAGE = 256
"""Flash attention 2 takes blocks of multiples of so many tokens."""


class Features(NamedTuple):
    """What a torch's `varlen_attn` can be asked for."""

    pages: bool
    """Keys and values in blocks that a table names."""
    splits: bool
    """A number of splits that is given: with 1 a row's bits do not depend on the others."""
    windows: bool
    groups: bool
    """Query heads that share a key head."""


def varlen_attn() -> Callable[..., Any] | None:
    """Torch's function, None where this torch has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


@cache
def features(function: Callable[..., Any]) -> Features:
    """What a form of torch's function takes, by its signature."""
    names = set(inspect.signature(function).parameters)
    return Features(
        pages={"block_table", "seqused_k"} <= names,
        splits="num_splits" in names,
        windows="window_size" in names,
        groups="enable_gqa" in names,
    )


def unsupported(kind: LayerKind) -> str | None:
    function = varlen_attn()
    if function is None:
        return f"Torch {torch.__version__} has no varlen_attn."
    has = features(function)
    if not (has.pages and has.splits and has.windows):  # causality is a window there
        return f"The varlen_attn of torch {torch.__version__} takes no block tables, or no splits, or no windows."
    if kind.heads != kind.kv_heads and not has.groups:
        return f"The varlen_attn of torch {torch.__version__} takes no key heads that are shared."
    if kind.softcap or kind.sinks:
        return "Torch's varlen_attn has neither soft-capping nor sinks."
    if kind.key_dim != kind.value_dim or kind.key_dim > 256 or kind.key_dim % 8:
        return f"Torch's varlen_attn takes heads of up to 256 numbers, in eights, not {kind.key_dim}/{kind.value_dim}."
    if kind.block_size % _PAGE:
        return f"Torch's varlen_attn takes blocks of multiples of {_PAGE} tokens, not {kind.block_size}."
    if kind.dtype not in (torch.bfloat16, torch.float16):
        return f"Torch's varlen_attn computes in bfloat16 and float16, not {kind.dtype}."
    if kind.device.type != "cuda":
        return f"Torch's varlen_attn runs on CUDA devices, not {kind.device}."
    if torch.cuda.get_device_capability(kind.device) < (8, 0):
        return f"{torch.cuda.get_device_name(kind.device)} is older than compute capability 8.0."
    return None


write = gathered.write
rotate_and_write = gathered.rotate_and_write


def decode(
    query: torch.Tensor,
    seen: Seen,
    spec: AttentionSpec,
    *,
    batch_invariant: bool = False,
) -> torch.Tensor:
    rows, tokens = seen.tables.shape[0], len(query)
    if not tokens:
        return query.new_empty(0, query.shape[1], seen.values.shape[3])
    count = tokens // rows
    starts = torch.arange(0, tokens + 1, count, dtype=torch.int32, device=query.device)
    return _attend(query, seen, starts, count, spec, batch_invariant)


def prefill(
    query: torch.Tensor,
    seen: Seen,
    starts: torch.Tensor,
    spec: AttentionSpec,
    *,
    batch_invariant: bool = False,
) -> torch.Tensor:
    out = _attend(query, seen, starts, len(query), spec, batch_invariant)
    padding = torch.arange(len(query), device=query.device) >= starts[-1]
    return out.masked_fill_(padding[:, None, None], 0)  # which torch leaves as it was


def _attend(
    query: torch.Tensor,
    seen: Seen,
    starts: torch.Tensor,
    longest: int,
    spec: AttentionSpec,
    batch_invariant: bool,
) -> torch.Tensor:
    """One call of torch's function, whose longest row of queries has at most `longest` tokens."""
    keys, values, tables, lengths = seen
    assert spec.softcap is None
    assert spec.sinks is None
    function = varlen_attn()
    assert function is not None
    groups = {"enable_gqa": True} if query.shape[1] != keys.shape[2] else {}
    out: torch.Tensor = function(
        query.contiguous(),
        keys,
        values,
        starts,
        None,
        longest,
        tables.shape[1] * keys.shape[1],
        scale=spec.scaling,
        window_size=(-1 if spec.window is None else spec.window - 1, 0),
        seqused_k=lengths,
        block_table=tables,
        num_splits=1 if batch_invariant else None,
        **groups,
    )
    return out
