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
    widest: int
    """Blocks that the longest sequence may have: the width of a recording's tables."""
    batch_invariant: bool
    """Attention must not depend on what else is in flight (strict mode)."""

    @property
    def size(self) -> int:
        return self.input_ids.shape[1]

    @property
    def layout(self) -> Any:
        """How many rows take one token each, where all do; None for passes with others."""
        only_decodes = self.num_decoding == len(self.lengths) == self.size
        return (self.size, len(self.wanted)) if only_decodes else None

    def inputs(self) -> Iterator[torch.Tensor]:
        yield from (self.input_ids, self.position_ids, self.wanted, self.slots, self.tables, self.lengths, self.starts)

    def own_inputs(self) -> PagedPass:
        """The same pass on tensors of its own, with tables for sequences of any length and no place as padding."""
        tables = self.tables.new_zeros(len(self.tables), max(self.widest, self.tables.shape[1]))
        own = replace(
            self,
            input_ids=self.input_ids.clone(),
            position_ids=self.position_ids.clone(),
            wanted=self.wanted.clone(),
            num_wanted=len(self.wanted),
            slots=self.slots.clone(),
            tables=tables,
            lengths=self.lengths.clone(),
            starts=self.starts.clone(),
        )
        own.fill(self)
        return own

    def fill(self, other: PagedPass) -> None:
        """Take the inputs of another pass of this layout. What is left of wider tables is not read."""
        self.tables[:, : other.tables.shape[1]].copy_(other.tables)
        for mine, theirs in zip(self.inputs(), other.inputs(), strict=True):
            if mine is not self.tables:
                mine.copy_(theirs)

    def begin(self) -> None:
        """Nothing is derived from the inputs."""


def lay_out(
    spans: Sequence[Span[Any]],
    device: torch.device,
    size: int | None,
    num_logits: int | None,
    widest: int,
    batch_invariant: bool,
) -> PagedPass:
    """Spans of sequences with block tables as one pass of at least `size` tokens; of just that if `batch_invariant`."""
    decoding = [span for span in spans if span.count == 1]
    others = [span for span in spans if span.count > 1]
    ordered = decoding + others
    num_tokens = sum(span.count for span in spans)
    size = size or num_tokens
    rows = len(ordered)
    num_decoding = len(decoding)
    if not others:
        size = rows = num_decoding = size if batch_invariant else row_bucket(max(size, rows))
        num_logits = num_logits if batch_invariant else num_logits and rows
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
        return torch.as_tensor(values).to(device, non_blocking=True)

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
        widest,
        batch_invariant,
    )
