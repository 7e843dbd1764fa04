"""One forward pass over pages: block tables and lengths are its inputs, so that one recording serves all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.prefix_index import BLOCK_SIZE
from batchchat.sampling import staged


def row_bucket(rows: int) -> int:
    """The number of rows that a step of `rows` rows which only decodes is computed with: 1, 2, 4, 8, 16, 24, …"""
    return -(-rows // 8) * 8 if rows > 4 else 1 << (rows - 1).bit_length()


@dataclass(slots=True)
class PagedPass:
    """A packed pass of `size` tokens: those of rows that take one token each, those of the others, and padding.

    In passes of the first kind alone padding has rows of its own, of length 0.
    """

    spans: list[Span[Any]]
    """In the order of their rows."""
    input_ids: torch.Tensor
    """`[1, size]`"""
    position_ids: torch.Tensor
    """`[1, size]`"""
    wanted: torch.Tensor
    """Places in the pass whose logits are computed, in the order in which the spans were given, then padding."""
    num_wanted: int
    """How many of them are no padding."""
    slots: torch.Tensor
    """int64 `[size]`: where a token's keys and values go, `block * block_size + place`; -1 for padding."""
    tables: torch.Tensor
    """int32 `[rows, max_blocks]`: the blocks of each row."""
    lengths: torch.Tensor
    """int32 `[rows]`: how many keys a row's last token sees, its own included."""
    starts: torch.Tensor
    """int32 `[rows - num_decoding + 1]`: where the tokens of the rows behind the first `num_decoding` begin among
    theirs."""
    num_decoding: int
    """Rows, the first ones, that take one token each."""
    batch_invariant: bool
    """Attention must not depend on what else is in flight (strict mode)."""

    @property
    def size(self) -> int:
        return self.input_ids.shape[1]

    @property
    def num_rows(self) -> int | None:
        """Of passes that only decode, with logits for every row; None of others."""
        only_decodes = self.num_decoding == len(self.lengths) == self.size == len(self.wanted)
        return self.size if only_decodes else None

    def inputs(self) -> Iterator[torch.Tensor]:
        """The tensors that differ between passes of as many rows."""
        yield from (self.input_ids, self.position_ids, self.wanted, self.slots, self.tables, self.lengths)

    def first(self, rows: int, width: int | None = None) -> PagedPass:
        """Of a pass that only decodes the part with the first rows, and of their tables the first `width` blocks, on
        the same memory."""
        return replace(
            self,
            input_ids=self.input_ids[:, :rows],
            position_ids=self.position_ids[:, :rows],
            wanted=self.wanted[:rows],
            num_wanted=rows,
            slots=self.slots[:rows],
            tables=self.tables[:rows, :width],
            lengths=self.lengths[:rows],
            num_decoding=rows,
        )

    def fill(self, other: PagedPass) -> None:
        """Take the inputs of another pass of as many rows. What is left of wider tables is not read."""
        for mine, theirs in zip(self.inputs(), other.inputs(), strict=True):
            (mine[:, : theirs.shape[1]] if mine is self.tables else mine).copy_(theirs, non_blocking=True)


def blank(rows: int, width: int, device: torch.device, batch_invariant: bool) -> PagedPass:
    """A pass that only decodes, of rows that hold nothing, with tables for sequences of up to `width` blocks."""

    def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype, device=device)

    return PagedPass(
        spans=[],
        input_ids=zeros(1, rows),
        position_ids=zeros(1, rows),
        wanted=zeros(rows),
        num_wanted=rows,
        slots=zeros(rows) - 1,
        tables=zeros(rows, width, dtype=torch.int32),
        lengths=zeros(rows, dtype=torch.int32),
        starts=zeros(1, dtype=torch.int32),
        num_decoding=rows,
        batch_invariant=batch_invariant,
    )


def lay_out(
    spans: Sequence[Span[Any]],
    device: torch.device,
    size: int | None,
    num_logits: int | None,
    batch_invariant: bool,
) -> PagedPass:
    """Spans of sequences with block tables as one pass of at least `size` tokens: of a row bucket where all take one
    token each, and of exactly `size` otherwise."""
    decoding = [span for span in spans if span.count == 1]
    others = [span for span in spans if span.count > 1]
    ordered = decoding + others
    num_tokens = sum(span.count for span in spans)
    size = size or num_tokens
    rows = len(ordered)
    num_decoding = len(decoding)
    if not others:
        is_full = num_logits == size
        size = rows = num_decoding = row_bucket(max(size, rows))
        num_logits = rows if is_full else num_logits
    firsts = list(accumulate((span.count for span in ordered), initial=0))
    ends = {id(span): end for span, end in zip(ordered, firsts[1:], strict=True)}
    wanted = [place for span in spans for place in range(ends[id(span)] - span.num_logits, ends[id(span)])]
    table_width = max(len(span.slot.blocks) for span in ordered)
    tables = np.zeros((rows, 1 << (table_width - 1).bit_length()), dtype=np.int32)
    lengths = np.zeros(rows, dtype=np.int32)
    slots = np.full(size, -1, dtype=np.int64)
    positions = np.zeros(size, dtype=np.int64)
    ids: list[int] = []
    for row, (span, first) in enumerate(zip(ordered, firsts, strict=False)):
        blocks = span.slot.blocks
        ids += span.ids
        tables[row, : len(blocks)] = blocks
        lengths[row] = span.end
        places = np.arange(span.start, span.end)
        positions[first : first + span.count] = places
        slots[first : first + span.count] = tables[row, places // BLOCK_SIZE] * BLOCK_SIZE + places % BLOCK_SIZE
    ids += [ids[0]] * (size - num_tokens)
    starts = np.asarray(firsts[len(decoding) :], dtype=np.int32) - len(decoding) if others else np.zeros(1, np.int32)

    def tensor(values: Any) -> torch.Tensor:
        return staged(values, device)

    return PagedPass(
        ordered,
        tensor(ids)[None],
        tensor(positions)[None],
        tensor(np.asarray(wanted + [0] * ((num_logits or len(wanted)) - len(wanted)), dtype=np.int64)),
        len(wanted),
        tensor(slots),
        tensor(tables),
        tensor(lengths),
        tensor(starts),
        num_decoding,
        batch_invariant,
    )
