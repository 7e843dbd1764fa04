"""One forward pass over pages: block tables and lengths are its inputs, so that one recording serves all of them."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import torch

from batchchat.engines.continuous.batch import Span, wanted_places
from batchchat.engines.continuous.prefix_index import BLOCK_SIZE
from batchchat.sampling import staged


def row_bucket(rows: int) -> int:
    """The number of rows that a step of `rows` rows which only decodes is computed with: 1, 2, 4, 8, 16, 24, …"""
    return -(-rows // 8) * 8 if rows > 4 else 1 << (rows - 1).bit_length()


class Form(NamedTuple):
    """The shape of a pass, which decides what is launched."""

    decoding: int
    """Rows that take one token each."""
    tokens: int
    """Those of the other rows, padding included."""
    rows: int
    """The other rows."""
    wanted: int
    """Logits."""

    @property
    def size(self) -> int:
        return self.decoding + self.tokens

    def holds(self, other: Form) -> bool:
        """Whether a pass of another form is one of this form with less padding."""
        return all(mine >= theirs for mine, theirs in zip(self, other, strict=True))


@dataclass(slots=True)
class PagedPass:
    """A packed pass of `size` tokens: those of rows that take one token each, those of the others, and padding behind
    each of both. Rows of padding are of length 0.
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
    def form(self) -> Form:
        rows = self.num_decoding
        return Form(rows, self.size - rows, len(self.lengths) - rows, len(self.wanted))

    @property
    def ends(self) -> list[int]:
        decoding = sum(span.count == 1 for span in self.spans)
        others = accumulate((span.count for span in self.spans[decoding:]), initial=self.num_decoding)
        return [*range(1, decoding + 1), *list(others)[1:]]

    def inputs(self) -> Iterator[torch.Tensor]:
        """The tensors that differ between passes of a form."""
        yield from (self.input_ids, self.position_ids, self.wanted, self.slots, self.tables, self.lengths, self.starts)

    def part(self, form: Form, width: int | None = None) -> PagedPass:
        """A pass of a smaller form, with tables of `width` blocks, on the same memory."""
        rows = form.decoding + form.rows
        return replace(
            self,
            input_ids=self.input_ids[:, : form.size],
            position_ids=self.position_ids[:, : form.size],
            wanted=self.wanted[: form.wanted],
            num_wanted=form.wanted,
            slots=self.slots[: form.size],
            tables=self.tables[:rows, :width],
            lengths=self.lengths[:rows],
            starts=self.starts[: form.rows + 1],
            num_decoding=form.decoding,
        )

    def fill(self, other: PagedPass) -> None:
        """Take the inputs of another pass of this form. What is left of wider tables is not read."""
        for mine, theirs in zip(self.inputs(), other.inputs(), strict=True):
            (mine[:, : theirs.shape[1]] if mine is self.tables else mine).copy_(theirs, non_blocking=True)


def blank(forms: Collection[Form], width: int, device: torch.device, batch_invariant: bool) -> PagedPass:
    """A pass of rows that hold nothing, on whose memory there is room for passes of all forms, with tables for
    sequences of up to `width` blocks."""
    size, rows, others, wanted = (
        max(numbers) for numbers in zip(*((f.size, f.decoding + f.rows, f.rows, f.wanted) for f in forms), strict=True)
    )

    def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype, device=device)

    return PagedPass(
        spans=[],
        input_ids=zeros(1, size),
        position_ids=zeros(1, size),
        wanted=zeros(wanted),
        num_wanted=wanted,
        slots=zeros(size) - 1,
        tables=zeros(rows, width, dtype=torch.int32),
        lengths=zeros(rows, dtype=torch.int32),
        starts=zeros(others + 1, dtype=torch.int32),
        num_decoding=size,
        batch_invariant=batch_invariant,
    )


def lay_out(
    spans: Sequence[Span[Any]],
    device: torch.device,
    size: int | None,
    num_logits: int | None,
    batch_invariant: bool,
    forms: Iterable[Form] = (),
) -> PagedPass:
    """Spans of sequences with block tables as one pass: of a row bucket where all take one token each, of the first of
    the `forms` that holds it where there is one, and else of exactly `size` tokens."""
    decoding = [span for span in spans if span.count == 1]
    others = [span for span in spans if span.count > 1]
    ordered = decoding + others
    counts = np.fromiter((span.count for span in others), np.int64, len(others))
    offsets = np.concatenate(([0], counts.cumsum()))
    num_rows, num_read = len(decoding), int(offsets[-1])
    form = _form(decoding, others, num_rows + num_read, size, num_logits, forms)

    rows = np.arange(len(ordered))
    rows[num_rows:] += form.decoding - num_rows
    tables = _tables([span.slot.blocks for span in ordered], rows, form.decoding + form.rows)
    lengths = np.zeros(len(tables), np.int32)
    lengths[rows] = [span.start + span.count for span in ordered]
    starts = np.full(form.rows + 1, num_read if others else form.tokens, np.int32)
    starts[: len(others)] = offsets[:-1]

    ids, positions, slots = np.zeros(form.size, np.int64), np.zeros(form.size, np.int64), np.full(form.size, -1)
    ids[:num_rows] = [span.sequence.tokens[span.start] for span in decoding]
    positions[:num_rows] = [span.start for span in decoding]
    slots[:num_rows] = _slots(tables, rows[:num_rows], positions[:num_rows])
    wanted = [place for place, span in enumerate(decoding) if span.sampled]
    if others:
        firsts = [*range(num_rows), *(offsets[:-1] + form.decoding).tolist()]
        wanted = wanted_places(spans, ordered, firsts)
        places = slice(form.decoding, form.decoding + num_read)
        row_of = np.repeat(np.arange(len(others)), counts)
        ids[places] = np.fromiter(chain.from_iterable(span.ids for span in others), np.int64, num_read)
        begins = np.fromiter((span.start for span in others), np.int64, len(others))
        positions[places] = np.arange(num_read) + (begins - offsets[:-1])[row_of]
        slots[places] = _slots(tables, rows[num_rows:][row_of], positions[places])
    all_wanted = np.zeros(form.wanted, np.int64)
    all_wanted[: len(wanted)] = wanted

    wide = np.concatenate((ids, positions, slots, all_wanted))
    narrow = np.concatenate((tables.ravel(), lengths, starts))
    packed = staged(np.concatenate((wide.view(np.int32), narrow)), device)  # one copy for all
    input_ids, position_ids, slots_there, wanted_there = (
        packed[: 2 * len(wide)].view(torch.int64).split([form.size] * 3 + [form.wanted])
    )
    tables_there, lengths_there, starts_there = packed[2 * len(wide) :].split([tables.size, len(lengths), len(starts)])
    return PagedPass(
        ordered,
        input_ids[None],
        position_ids[None],
        wanted_there,
        len(wanted),
        slots_there,
        tables_there.view(tables.shape),
        lengths_there,
        starts_there,
        form.decoding,
        batch_invariant,
    )


def _tables(held: Sequence[array[int]], rows: np.ndarray, num_rows: int) -> np.ndarray:
    """int32 `[num_rows, max_blocks]`: the blocks `held` of some rows, 0 elsewhere; as wide as a power of two, so that
    few shapes are met."""
    widths = np.fromiter(map(len, held), np.int64, len(held))
    tables = np.zeros((num_rows, 1 << (int(widths.max()) - 1).bit_length()), np.int32)
    blocks = np.frombuffer(b"".join(held), np.int32)
    tables[np.repeat(rows, widths), np.arange(len(blocks)) - np.repeat(widths.cumsum() - widths, widths)] = blocks
    return tables


def _slots(tables: np.ndarray, rows: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """int64: where tokens at `positions` of the sequences in some `rows` are held."""
    return tables[rows, positions // BLOCK_SIZE].astype(np.int64) * BLOCK_SIZE + positions % BLOCK_SIZE


def _form(
    decoding: Sequence[Span[Any]],
    others: Sequence[Span[Any]],
    num_tokens: int,
    size: int | None,
    num_logits: int | None,
    forms: Iterable[Form],
) -> Form:
    size = size or num_tokens
    wanted = max(num_logits or 0, sum(span.num_logits for span in (*decoding, *others)))
    if not others:
        rows = row_bucket(max(size, len(decoding)))
        return Form(rows, 0, 0, rows if num_logits == size else wanted)
    least = Form(len(decoding), num_tokens - len(decoding), len(others), wanted)
    exact = least._replace(tokens=size - len(decoding))
    return next((form for form in forms if form.rows and form.holds(least)), exact)
