"""The answers while they are written: tokens are chosen on the device in the moment that their logits are launched, go
into the next pass there, and are read by the host whenever it needs them.
(Launching a step before the last one is read: https://docs.vllm.ai/en/latest, "async scheduling"; SGLang's overlap
scheduler.)
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass
from itertools import accumulate

import torch

from batchchat.chats import Request
from batchchat.engines.answer import no_token
from batchchat.engines.base import TokenListener
from batchchat.engines.continuous.base import PackedPass
from batchchat.engines.continuous.sequence import SequenceState
from batchchat.prompts import Codec
from batchchat.sampling import Choice, Reader, Reading, SamplerRows, reader, staged


@dataclass(frozen=True, slots=True)
class Chosen:
    """A token for each of some sequences, on its way to the host."""

    sequences: list[SequenceState]
    """In the order of the choice's rows."""
    rows: Ordered[int]
    """Those of them that take their token."""
    ids: torch.Tensor
    """[rows] int64, on the device."""
    reading: Reading


class Writing:
    """The sequences that write, in the order of the sampler's rows. `read_by`: how choices come to the host."""

    def __init__(
        self,
        vocab_size: int,
        device: torch.device,
        codec: Codec,
        on_token: TokenListener | None = None,
        read_by: Reader | None = None,
    ):
        self.live: list[SequenceState] = []
        self.sampler = SamplerRows(vocab_size, device, texts=codec.token_texts)
        self._device = device
        self._on_token = on_token
        self._read_by = read_by or reader(device)
        self._last: Chosen | None = None

    @property
    def refusal(self) -> Callable[[Request], str | None]:
        """Why a request cannot be sampled, in one sentence; None if it can."""
        return self.sampler.refusal

    def begin(self, sequences: Ordered[SequenceState]) -> None:
        """Sequences whose prompt is computed begin to write."""
        if sequences:
            self.live += sequences
            self.sampler.extend([sequence.request for sequence in sequences])

    def keep(self) -> None:
        """Drop the rows of sequences that are no longer in flight, or whose last token is chosen."""
        keep = [
            row
            for row, sequence in enumerate(self.live)
            if sequence.slot is not None and sequence.num_prompt < len(sequence.tokens) < sequence.num_whole
        ]
        if len(keep) < len(self.live):
            self.live = [self.live[row] for row in keep]
            self.sampler.select(keep)

    def fill(self, work: PackedPass) -> None:
        """Put the tokens that the host does not know into a pass: each is the last one of its span."""
        unread = [
            (end - 1, span.sequence)
            for end, span in zip(work.ends, work.spans, strict=True)
            if span.sequence.num_unread
        ]
        if not unread:
            return
        assert self._last is not None
        places, sequences = map(list, zip(*unread, strict=True))
        if sequences == self._last.sequences and places[-1] == len(places) - 1:  # all of them, side by side
            work.input_ids[0, : len(places)] = self._last.ids
            return
        row_of = {sequence: row for row, sequence in enumerate(self._last.sequences)}
        rows = staged([row_of[sequence] for sequence in sequences], self._device)
        work.input_ids[0, staged(places, self._device)] = self._last.ids[rows]

    def choose(self, logits: torch.Tensor, rows: Ordered[int] | None = None) -> Chosen:
        """The next token of every row, or of these rows, from `logits` `[rows, vocabulary]`."""
        choice = self.sampler.choose(logits) if self.live else _nothing(logits)
        taking = range(len(self.live)) if rows is None else rows
        self.sampler.append(choice.ids, taking)
        for row in taking:
            self.live[row].choose()
        self._last = Chosen(list(self.live), taking, choice.ids, self._read_by(choice))
        return self._last

    def read(self, chosen: Chosen) -> list[SequenceState]:
        """Give the tokens to the sequences that are still in flight. Returns those."""
        told = chosen.reading()
        taking = []
        for row in chosen.rows:
            sequence = chosen.sequences[row]
            if sequence.slot is None:  # it ended, or is computed again
                continue
            taking.append(sequence)
            if told.failed[row]:
                step = len(sequence.answer.token_ids) + 1
                reason = told.reasons.get(row) or no_token(sequence.request, step)
                sequence.drop_unread()
                sequence.answer.fail(reason)
            else:
                sequence.read(told.ids[row], None if told.logprobs is None else told.logprobs[row])
                self._report_token(sequence)
        return taking

    def verify(self, logits: torch.Tensor, drafts: list[tuple[int, ...]]) -> None:
        """A further token for each draft that was right, the first tokens being read. `logits` has those of all
        drafts, behind each row's first one."""
        firsts = list(accumulate((1 + len(draft) for draft in drafts), initial=0))[:-1]
        going_on, number = list(range(len(drafts))), 0
        while going_on := [
            row
            for row in going_on
            if number < len(drafts[row])
            and not self.live[row].answer.done
            and self.live[row].tokens[-1] == drafts[row][number]
        ]:
            number += 1
            places = [first + number * (row in going_on) for row, first in enumerate(firsts)]
            self.read(self.choose(logits[places], going_on))

    def _report_token(self, sequence: SequenceState) -> None:
        written = len(sequence.answer.token_ids)
        if self._on_token is not None and written > sequence.num_reported:
            self._on_token(sequence.request, sequence.answer.token_ids[-1])
            sequence.num_reported = written


def _nothing(logits: torch.Tensor) -> Choice:
    """The choice of a step without rows that write, which is waited for like any other."""
    return Choice(logits.new_empty(0, dtype=torch.int64), logits.new_empty(0, dtype=torch.bool))
