"""Keeps rows in the form that their answers must have: of each step's tokens only those are left that it allows.

What may come next is known as soon as the last token is, so it is worked out beside whatever is computed meanwhile: the
model's next pass. Rows without a form cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy
import torch

from batchchat.chats import Request
from batchchat.errors import BadRow
from batchchat.sampling.calling import CallingAnswer, marks_of, written_texts
from batchchat.sampling.formed import FormedAnswer
from batchchat.sampling.masks import Mask, Texts, banned
from batchchat.sampling.staging import staged
from batchchat.structure import matchers_of

ConstrainedRow = FormedAnswer | CallingAnswer
"""An answer with a form while it is written."""


class RowConstraints:
    """The rows' forms, in the order of the logits' rows."""

    def __init__(self, vocab_size: int, device: torch.device, texts: Callable[[], Any] | None = None):
        self._vocab_size = vocab_size
        self._device = device
        self._texts = texts
        self._rows: list[_Row | None] = []

    def refusal(self, request: Request) -> str | None:
        """Why a row for this request could not be kept in its form, in one sentence; None if it can."""
        if request.settings.structured is None:
            return None
        try:
            return self._row(request).answer.failure
        except BadRow as error:
            return str(error)

    def extend(self, requests: Sequence[Request]) -> None:
        """Add rows at the end, at their first token."""
        new = [None if request.settings.structured is None else self._row(request) for request in requests]
        self._rows += new
        self._look_ahead([row for row in new if row is not None])

    def select(self, rows: Sequence[int]) -> None:
        """Keep the rows with these numbers, in this order."""
        self._rows = [self._rows[row] for row in rows]

    def append(self, ids: torch.Tensor, rows: Sequence[int]) -> None:
        """Tokens [rows] that those in `rows` took. Waits for the device where one of them has a form."""
        taking = [(number, row) for number in rows if (row := self._rows[number]) is not None]
        if not taking:
            return
        tokens = ids.tolist()
        for number, row in taking:
            row.settle()
            row.answer.take(tokens[number])
        self._look_ahead([row for _, row in taking])

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` [rows, vocabulary] with -inf at each token that a row's form does not allow; the tensor itself where
        no row has one. Waits until that is known."""
        numbers = [number for number, row in enumerate(self._rows) if row is not None]
        if not numbers:
            return logits
        masks = numpy.stack([row.settle() for row in self._rows if row is not None])
        without = banned(masks, self._vocab_size, self._device)
        if len(numbers) == len(self._rows):
            return logits.masked_fill(without, -torch.inf)
        places = staged(numbers, self._device, torch.int64)
        return logits.index_copy(0, places, logits[places].masked_fill(without, -torch.inf))

    @property
    def failures(self) -> Mapping[int, str]:
        """Rows whose form allows no token, and why."""
        rows = ((number, row.answer.failure) for number, row in enumerate(self._rows) if row is not None)
        return {number: failure for number, failure in rows if failure}

    def _row(self, request: Request) -> _Row:
        assert self._texts is not None, "a form needs the texts of the tokens"
        return _Row(constrained_row(request, self._texts(), self._vocab_size))

    def _look_ahead(self, rows: Sequence[_Row]) -> None:
        """Begin to work out what may come next in these rows."""
        if rows:
            coming = _background().submit(_masks, [row.answer for row in rows])
            for place, row in enumerate(rows):
                row.coming = coming, place


def constrained_row(request: Request, texts: Texts, vocab_size: int) -> ConstrainedRow:
    """A row for a request with a form, at its first token. Raises BadRow for a form that cannot be kept."""
    assert request.settings.structured is not None, "the row has a form"
    backend = request.settings.structured.backend
    if request.settings.structured.kind == "calls":
        written = written_texts(texts, marks_of(request))
        return CallingAnswer(request, texts, matchers_of(backend, written, vocab_size), vocab_size)
    return FormedAnswer(request, texts, matchers_of(backend, texts, vocab_size), vocab_size)


class _Row:
    """An answer while it is written, and what may come next in it."""

    def __init__(self, answer: ConstrainedRow):
        self.answer = answer
        self.coming: tuple[Future[Any], int] | None = None
        self._mask: Mask = None

    def settle(self) -> Mask:
        """The mask, once it is worked out."""
        if self.coming is not None:
            coming, place = self.coming
            self._mask, self.coming = coming.result()[place], None
        return self._mask


def _masks(answers: Sequence[ConstrainedRow]) -> list[Mask]:
    allowed: dict[int, Mask] = {}
    for matchers in dict.fromkeys(answer.matchers for answer in answers):
        pairs = [
            (place, answer.matcher)
            for place, answer in enumerate(answers)
            if answer.matcher is not None and answer.matchers is matchers
        ]
        if pairs:
            places, asked = zip(*pairs, strict=True)
            allowed.update(zip(places, matchers.allowed(asked), strict=True))
    return [answer.mask(allowed.get(place)) for place, answer in enumerate(answers)]


@cache
def _background() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="constraints")
