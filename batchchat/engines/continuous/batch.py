"""One forward pass: tokens of many sequences packed into one row, and what attention must know to keep them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch

from batchchat.engines.continuous.base import Allocation
from batchchat.engines.continuous.pools import Pool, bucket

FEW_TOKENS = 16
"""Spans of at most so many tokens, behind others, are computed together with those of their pool, and longer ones or
the beginnings of prompts each for itself."""


_LONG = 1024
"""Keys that a token of a prompt sees from which on torch's attention is faster than the compiled one."""


class InSlot(Protocol):
    """Tokens with a place in a cache: a sequence, or what a draft model keeps of it."""

    @property
    def tokens(self) -> list[int]: ...

    @property
    def placed(self) -> Allocation: ...


Held = TypeVar("Held", bound=InSlot)


def _bias(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))


@dataclass(eq=False, slots=True)
class Span(Generic[Held]):
    """Tokens `[start, start + count)` of a sequence; with `sampled` the last one's logits are wanted.

    The last ones of a span may be `drafts`: guesses at what follows the sequence's own tokens. Then the logits of its
    last own token and of all drafts are wanted, which is what it takes to verify them.
    """

    sequence: Held
    start: int
    count: int
    sampled: bool
    drafts: tuple[int, ...] = ()

    @property
    def slot(self) -> Any:
        return self.sequence.placed

    @property
    def end(self) -> int:
        return self.start + self.count

    @property
    def known(self) -> int:
        """How many tokens of the sequence are its own when the span is computed."""
        return self.end - len(self.drafts)

    @property
    def num_logits(self) -> int:
        return 1 + len(self.drafts) if self.sampled else 0

    @property
    def ids(self) -> list[int]:
        return [*self.sequence.tokens[self.start : self.known], *self.drafts]


@dataclass(slots=True)
class DecodeGroup:
    """Rows of one pool that take `count` tokens each: tokens `[first, last)` of the pass, row by row.

    `rows` names their pool rows where they are not just the first ones; attention runs over the first `num_rows`
    rows at `[0, length)`. `lengths` is how many keys the last of each row's tokens sees, its own included.
    """

    pool: Pool
    first: int
    last: int
    count: int
    rows: torch.Tensor | None
    num_rows: int
    length: int
    lengths: torch.Tensor
    masks: dict[tuple[int | None, int, int, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def mask(self, window: int | None, heads: int, shared: int, dtype: torch.dtype) -> torch.Tensor:
        """`[num_rows * heads, shared * count, length]`: 0 where a key is seen, -inf where not; `shared` query heads
        read a key head, and count as 1 where `count` is 1. Made once for all layers."""
        kind = (window, heads, shared, dtype)
        if kind not in self.masks:
            device = self.lengths.device
            places = torch.arange(self.length, device=device)
            ends = self.lengths[:, None, None] - torch.arange(self.count - 1, -1, -1, device=device)[:, None]
            seen = places < ends
            if window is not None:
                seen &= places >= ends - window
            bias = _bias(seen, dtype).repeat_interleave(heads, 0)
            self.masks[kind] = bias if self.count == 1 else bias.repeat(1, shared, 1)
        return self.masks[kind]


@dataclass(slots=True)
class PrefillSpan:
    """Tokens `[first, last)` of the pass: places `[start, end)` of one pool row, which sees `[0, length)`."""

    pool: Pool
    row: int
    first: int
    last: int
    start: int
    end: int
    length: int
    device: torch.device
    masks: dict[int | None, torch.Tensor] = field(default_factory=dict)

    def seen(self, window: int | None) -> torch.Tensor:
        """Bool `[tokens, length]`, True where a key is seen. Made once for all layers."""
        if window not in self.masks:
            keys = torch.arange(self.length, device=self.device)
            queries = torch.arange(self.start, self.end, device=self.device)[:, None]
            seen = keys <= queries
            if window is not None:
                seen &= keys > queries - window
            self.masks[window] = seen
        return self.masks[window]

    def bias(self, window: int | None, dtype: torch.dtype) -> torch.Tensor:
        """The same as numbers to add to scores: 0 where a key is seen, -inf where not."""
        return _bias(self.seen(window), dtype)


@dataclass(slots=True)
class KVWrite:
    """Where new keys and values go: token `tokens[i]` of the pass to place `places[i]` of row `rows[i]`."""

    pool: Pool
    tokens: torch.Tensor
    rows: torch.Tensor
    places: torch.Tensor


@dataclass(slots=True)
class Pass:
    """A packed forward pass of `size` tokens, those behind the spans' tokens being padding that nothing reads."""

    spans: list[Span[Any]]
    """In the order of their tokens: those with few tokens first, by pool and row."""
    input_ids: torch.Tensor
    """`[1, size]`"""
    position_ids: torch.Tensor
    """`[1, size]`"""
    wanted: torch.Tensor
    """Places in the pass whose logits are computed: what the sampled spans want, in the order in which they were given,
    then padding."""
    num_wanted: int
    """How many of them are no padding."""
    writes: list[KVWrite]
    decoding: list[DecodeGroup]
    prefilling: list[PrefillSpan]
    batch_invariant: bool
    """Attention must not depend on what else is in flight (strict mode)."""
    bases: dict[int, np.ndarray] = field(default_factory=dict)
    """Where each layer's keys and values lie, pool by pool of the plan: kept by who computes it."""
    _plan: tuple[np.ndarray, list[Pool]] | None = None

    @property
    def size(self) -> int:
        return self.input_ids.shape[1]

    @property
    def ends(self) -> list[int]:
        return list(accumulate(span.count for span in self.spans))

    @property
    def num_tokens(self) -> int:
        """Tokens that are no padding."""
        groups = self.prefilling or self.decoding
        return groups[-1].last if groups else 0

    @property
    def plan(self) -> tuple[np.ndarray, list[Pool]]:
        """All spans but the long ones in pieces of few tokens, as compiled attention takes them, and their pools. Int64
        `[rows, 6]`: the piece's first token in the pass, how many it has, its row in the pool, the pool's length, how
        many keys its last token sees, the pool's place in the list. Made once for all layers."""
        if self._plan is None:
            pools = list(dict.fromkeys(span.slot.pool for span in self.spans))
            places = {id(pool): place for place, pool in enumerate(pools)}
            long = {span.first for span in self.long_spans}
            rows, first = [], 0
            for span in self.spans:
                slot = span.slot
                if first in long:
                    first += span.count
                    continue
                place = places[id(slot.pool)]
                for start in range(span.start, span.end, FEW_TOKENS):
                    end = min(start + FEW_TOKENS, span.end)
                    rows.append((first, end - start, slot.row, slot.pool.length, end, place))
                    first += end - start
            self._plan = np.array(rows, dtype=np.int64).reshape(-1, 6), pools
        return self._plan

    @property
    def long_spans(self) -> list[PrefillSpan]:
        """Those for which torch's attention is better than the compiled one. A span's own length says it, and nothing
        else in the pass, so that its numbers do not depend on the others."""
        return [span for span in self.prefilling if span.end > _LONG]


def build_pass(
    spans: Sequence[Span[Any]],
    device: torch.device,
    size: int | None = None,
    num_logits: int | None = None,
    *,
    batch_invariant: bool = False,
) -> Pass:
    """Lay out `spans` as one pass of `size` tokens that computes `num_logits` logits (as many as needed if None).

    Rows see all of their slot, masked behind their own end; if `batch_invariant`, as much of it as their own length
    decides.
    """

    def is_short(span: Span[Any]) -> bool:
        return span.count == 1 or (span.start > 0 and span.count <= FEW_TOKENS and not batch_invariant)

    def lane(span: Span[Any]) -> tuple[int, int, int]:
        return (span.slot.pool.length, bucket(span.end) if batch_invariant else 0, span.count)

    decode = sorted((span for span in spans if is_short(span)), key=lambda span: (*lane(span), span.slot.row))
    ordered = decode + [span for span in spans if not is_short(span)]
    firsts = list(accumulate((span.count for span in ordered), initial=0))[:-1]
    ids = [id_ for span in ordered for id_ in span.ids]
    positions = [position for span in ordered for position in range(span.start, span.end)]
    padding = (size or len(ids)) - len(ids)
    ids += [ids[0]] * padding
    positions += [0] * padding
    wanted = wanted_places(spans, ordered, firsts)
    num_wanted = len(wanted)
    wanted += [0] * ((num_logits or num_wanted) - num_wanted)

    def tensor(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.long).to(device, non_blocking=True)

    groups: list[DecodeGroup] = []
    place = 0
    for (pool_length, seen, count), members in groupby(decode, key=lane):
        group = list(members)
        groups.append(_decode_group(group, place, count, tensor, seen or pool_length))
        place += count * len(group)
    prefilling = [
        _prefill_span(span, first, bucket(span.end) if batch_invariant else span.end, device)
        for span, first in zip(ordered[len(decode) :], firsts[len(decode) :], strict=True)
    ]
    return Pass(
        ordered,
        tensor(ids)[None],
        tensor(positions)[None],
        tensor(wanted),
        num_wanted,
        _writes(ordered, firsts, tensor),
        groups,
        prefilling,
        batch_invariant,
    )


def _prefill_span(span: Span[Any], first: int, length: int, device: torch.device) -> PrefillSpan:
    slot, last = span.slot, first + span.count
    return PrefillSpan(slot.pool, slot.row, first, last, span.start, span.end, length, device)


def wanted_places(spans: Sequence[Span[Any]], ordered: Sequence[Span[Any]], firsts: Sequence[int]) -> list[int]:
    """The places in a pass whose logits are wanted, in the order of `spans`. `firsts`: where `ordered` begin."""
    ends = {id(span): first + span.count for span, first in zip(ordered, firsts, strict=True)}
    return [place for span in spans for place in range(ends[id(span)] - span.num_logits, ends[id(span)])]


def _decode_group(
    group: list[Span[Any]], first: int, count: int, tensor: Callable[[list[int]], torch.Tensor], length: int
) -> DecodeGroup:
    pool = group[0].slot.pool
    rows = [span.slot.row for span in group]
    num_rows = rows[-1] + 1
    lengths = [count] * num_rows
    for span in group:
        lengths[span.slot.row] = span.end
    return DecodeGroup(
        pool,
        first,
        first + count * len(group),
        count,
        tensor(rows) if len(rows) < num_rows else None,
        num_rows,
        length,
        tensor(lengths),
    )


def _writes(spans: list[Span[Any]], firsts: list[int], tensor: Callable[[list[int]], torch.Tensor]) -> list[KVWrite]:
    writes = []
    by_pool = sorted(zip(spans, firsts, strict=True), key=lambda pair: pair[0].slot.pool.length)
    for _, members in groupby(by_pool, key=lambda pair: pair[0].slot.pool.length):
        tokens: list[int] = []
        rows: list[int] = []
        places: list[int] = []
        for span, first in members:
            pool = span.slot.pool
            tokens += range(first, first + span.count)
            rows += [span.slot.row] * span.count
            places += range(span.start, span.end)
        writes.append(KVWrite(pool, tensor(tokens), tensor(rows), tensor(places)))
    return writes
