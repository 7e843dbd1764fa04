"""One forward pass over pages: block tables and lengths are its inputs, so that one recording serves all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
import torch

from batchchat.engines.continuous.batch import Span
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
    counts = np.fromiter((span.count for span in ordered), np.int64, len(ordered))
    starts = np.fromiter((span.start for span in ordered), np.int64, len(ordered))
    form = _form(decoding, others, int(counts.sum()), size, num_logits, forms)
    behind = np.arange(len(ordered)) >= len(decoding)
    rows = np.arange(len(ordered)) + behind * (form.decoding - len(decoding))
    begins_packed = counts.cumsum() - counts
    firsts = begins_packed + behind * (form.decoding - len(decoding))
    row_of = np.repeat(np.arange(len(ordered)), counts)
    inside = np.arange(len(row_of)) - begins_packed[row_of]
    places, held_at = firsts[row_of] + inside, starts[row_of] + inside

    held = [span.slot.blocks for span in ordered]
    widths = np.fromiter(map(len, held), np.int64, len(held))
    tables = np.zeros((form.decoding + form.rows, 1 << (int(widths.max()) - 1).bit_length()), dtype=np.int32)
    blocks = np.fromiter(chain.from_iterable(held), np.int32, int(widths.sum()))
    tables[np.repeat(rows, widths), np.arange(len(blocks)) - np.repeat(widths.cumsum() - widths, widths)] = blocks
    lengths = np.zeros(form.decoding + form.rows, dtype=np.int32)
    lengths[rows] = starts + counts
    known = np.fromiter(chain.from_iterable(span.ids for span in ordered), np.int64, len(row_of))
    ids, slots, positions = np.full(form.size, known[0]), np.full(form.size, -1), np.zeros(form.size, np.int64)
    ids[places], positions[places] = known, held_at
    slots[places] = tables[rows[row_of], held_at // BLOCK_SIZE].astype(np.int64) * BLOCK_SIZE + held_at % BLOCK_SIZE
    offsets = np.full(form.rows + 1, form.tokens if not others else int(counts[len(decoding) :].sum()), np.int32)
    offsets[: len(others)] = firsts[len(decoding) :] - form.decoding
    ends = {id(span): end for span, end in zip(ordered, (firsts + counts).tolist(), strict=True)}
    wanted = [place for span in spans for place in range(ends[id(span)] - span.num_logits, ends[id(span)])]

    all_wanted = np.zeros(form.wanted, np.int64)
    all_wanted[: len(wanted)] = wanted
    packed = staged(np.concatenate((ids, positions, slots, all_wanted)), device)
    narrow = staged(np.concatenate((tables.ravel(), lengths, offsets)), device)
    input_ids, position_ids, new_slots, places_wanted = packed.split([form.size] * 3 + [form.wanted])
    seen, ends_seen, begins = narrow.split([tables.size, len(lengths), len(offsets)])
    return PagedPass(
        ordered,
        input_ids[None],
        position_ids[None],
        places_wanted,
        len(wanted),
        new_slots,
        seen.view(tables.shape),
        ends_seen,
        begins,
        form.decoding,
        batch_invariant,
    )


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
