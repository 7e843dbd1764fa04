"""Whether who attends over pages gives the numbers of torch's own operators: tried on a few rows before it is taken."""

from __future__ import annotations

from typing import Protocol

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged import attention as plain
from batchchat.engines.continuous.paged.contract import PagedAttention, Seen
from batchchat.engines.continuous.paged.pages import new_pages

_LENGTHS = (1, 37, 300)
_TOLERANCE = {torch.float32: 5e-3, torch.float16: 2e-2, torch.bfloat16: 8e-2}
"""Differences, at numbers of about 1, that rounding may explain."""


class Kind(Protocol):
    """What a layer is like."""

    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def key_dim(self) -> int: ...
    @property
    def value_dim(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def softcap(self) -> bool: ...
    @property
    def sinks(self) -> bool: ...


@torch.inference_mode()
def fault(attention: PagedAttention, kind: Kind) -> str | None:
    """What is wrong with it for such a layer, as a sentence; None where nothing is. Want of memory is no fault."""
    try:
        for window, invariant in ((None, False), (20, True)):
            what = _compared(attention, kind, window, invariant)
            if what is not None:
                return what
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler may raise anything
        return f"It raised {type(error).__name__}: {' '.join(str(error).split())[:200]}."
    return None


def _compared(attention: PagedAttention, kind: Kind, window: int | None, invariant: bool) -> str | None:
    random = torch.Generator().manual_seed(window or 0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random).to(kind.device, kind.dtype)

    needed = [-(-length // kind.block_size) for length in _LENGTHS]
    order = torch.randperm(sum(needed), generator=random).to(torch.int32)
    tables = torch.zeros(len(needed), max(needed), dtype=torch.int32)
    slots = []
    for row, (blocks, length) in enumerate(zip(order.split(needed), _LENGTHS, strict=True)):
        tables[row, : len(blocks)] = blocks
        places = torch.arange(length)
        slots.append(blocks[places // kind.block_size].long() * kind.block_size + places % kind.block_size)
    where = torch.cat([*slots, torch.tensor([-1])]).to(kind.device)
    tables, lengths = tables.to(kind.device), torch.tensor(_LENGTHS, dtype=torch.int32, device=kind.device)
    new = normal(len(where), kind.kv_heads, kind.key_dim), normal(len(where), kind.kv_heads, kind.value_dim)

    def pages() -> tuple[torch.Tensor, torch.Tensor]:
        """With numbers that are none wherever nothing is written."""
        made = (
            new_pages(sum(needed), kind.block_size, kind.kv_heads, dim, kind.dtype, kind.device).fill_(torch.nan)
            for dim in (kind.key_dim, kind.value_dim)
        )
        keys, values = made
        return keys, values

    ours, theirs = pages(), pages()
    plain.write(*new, *theirs, where)
    attention.write(*new, *ours, where)
    if not all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(ours, theirs, strict=True)):
        return "It writes other keys and values than torch's operators."
    softcap = 5.0 if kind.softcap else None
    sinks = normal(kind.heads) if kind.sinks else None
    counts = torch.tensor([0, *(min(length, 5) for length in _LENGTHS)], dtype=torch.int32, device=kind.device)
    starts = counts.cumsum(0, dtype=torch.int32)
    several = normal(int(starts[-1]), kind.heads, kind.key_dim)
    one = several[(starts[1:] - 1).long()]

    def both(who: PagedAttention) -> torch.Tensor:
        spec, seen = AttentionSpec(kind.key_dim**-0.5, window, softcap, sinks), Seen(*theirs, tables, lengths)
        decoded = who.decode(one, seen, spec, batch_invariant=invariant)
        return torch.cat((decoded, who.prefill(several, seen, starts, spec, batch_invariant=invariant)))

    limit = _TOLERANCE.get(kind.dtype, _TOLERANCE[torch.bfloat16])
    worst = float((both(attention).float() - both(plain).float()).abs().max())
    if not worst <= limit:
        return f"Its numbers differ from those of torch's operators by {worst:.2g}, where rounding explains {limit:g}."
    return None
