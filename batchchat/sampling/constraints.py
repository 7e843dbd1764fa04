"""Keeps rows in the form that their answers must have: of each step's tokens only those are left that it allows.

What may come next is known as soon as the last token is, so it is worked out beside whatever is computed meanwhile: the
model's next pass. Rows without a form cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, lru_cache
from typing import Any, Protocol

import numpy
import torch

from batchchat.chats import Request
from batchchat.errors import BadRow
from batchchat.sampling.reasoning import NamedTexts, Reasoning
from batchchat.sampling.staging import staged
from batchchat.structure import Matcher, Matchers, TokenBytes

Mask = Any
"""A numpy array [words] int32, a bit for each token."""
_BITS = 32


class Texts(TokenBytes, NamedTexts, Protocol):
    """What each token of a vocabulary adds to a text (`prompts.token_texts`)."""


class RowConstraints:
    """The rows' forms, in the order of the logits' rows."""

    def __init__(self, vocab_size: int, device: torch.device, texts: Callable[[], Any] | None = None):
        self._vocab_size = vocab_size
        self._device = device
        self._texts = texts
        self._rows: list[ConstrainedRow | None] = []

    def refusal(self, request: Request) -> str | None:
        """Why a row for this request could not be kept in its form, in one sentence; None if it can."""
        if request.settings.structured is None:
            return None
        try:
            return self._row(request).failure
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
            row.take(tokens[number])
        self._look_ahead([row for _, row in taking])

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """`logits` [rows, vocabulary] with -inf at each token that a row's form does not allow; the tensor itself where
        no row has one. Waits until that is known."""
        numbers = [number for number, row in enumerate(self._rows) if row is not None]
        if not numbers:
            return logits
        masks = numpy.stack([row.settle() for row in self._rows if row is not None])
        banned = _banned(masks, self._vocab_size, self._device)
        if len(numbers) == len(self._rows):
            return logits.masked_fill(banned, -torch.inf)
        places = staged(numbers, self._device, torch.int64)
        return logits.index_copy(0, places, logits[places].masked_fill(banned, -torch.inf))

    @property
    def failures(self) -> Mapping[int, str]:
        """Rows whose form allows no token, and why."""
        return {number: row.failure for number, row in enumerate(self._rows) if row is not None and row.failure}

    def _row(self, request: Request) -> ConstrainedRow:
        assert self._texts is not None, "a form needs the texts of the tokens"
        return constrained_row(request, self._texts(), self._vocab_size)

    def _look_ahead(self, rows: Sequence[ConstrainedRow]) -> None:
        """Begin to work out what may come next in these rows."""
        if rows:
            coming = _background().submit(_masks, rows)
            for place, row in enumerate(rows):
                row.wait_for(coming, place)


def constrained_row(request: Request, texts: Texts, vocab_size: int) -> ConstrainedRow:
    """A row for a request with a form, at its first token. Raises BadRow for a form that cannot be kept."""
    return ConstrainedRow(request, texts, _matchers(texts, vocab_size), vocab_size)


class ConstrainedRow:
    """One answer while it is written."""

    def __init__(self, request: Request, texts: Texts, matchers: Matchers, vocab_size: int):
        structure = request.settings.structured
        assert structure is not None
        self.matchers = matchers
        self.matcher: Matcher = matchers.matcher(structure)
        self.failure: str | None = None
        last = request.messages[-1] if request.messages else None
        begun = last.content if last is not None and last.role == "assistant" else None
        self.reasoning = Reasoning(texts, request.prompt_ids, begun=bool(begun))
        self.ends = _mask([token for token in request.settings.stop_token_ids if token < vocab_size], vocab_size)
        self._texts = texts
        self._vocab_size = vocab_size
        self._stop_ids = frozenset(request.settings.stop_token_ids)
        self._mask: Mask = None
        self._coming: tuple[Future[Any], int] | None = None
        if begun and self.reasoning.state == "over":
            self._continue(begun.encode("utf-8", "surrogatepass"))

    def take(self, token: int) -> None:
        """The next token. An end token is no part of the answer."""
        if token in self._stop_ids or self.failure is not None:
            return
        if self.reasoning.state == "over":
            self._fits(self.matcher.take([token]))
        elif rest := self.reasoning.take(token):
            whole = rest == self._texts.pieces[token]
            self._fits(self.matcher.take([token] if whole else self._texts.tokens(rest)))

    def allowed(self) -> Mask:
        """What may come next, worked out now. Nothing, where `failure` says why."""
        return self.mask(self.matchers.allowed([self.matcher])[0])

    def mask(self, allowed: Mask) -> Mask:
        """What may come next, from what the matcher allows."""
        known, textual = _vocabulary(self._texts, self._vocab_size)
        if self.failure is None:
            self.failure = self.matcher.failure
        if self.failure is not None:
            return numpy.zeros_like(allowed)
        if self.reasoning.state == "open":
            return known & ~self.ends
        allowed = allowed & textual & ~self.ends
        if self.reasoning.further:
            allowed |= _mask(self.reasoning.further, self._vocab_size)
        if self.matcher.may_end:
            allowed |= self.ends
        if not allowed.any():
            self.failure = "the form of the answer allows nothing more at this place, not even its end"
        return allowed

    def wait_for(self, coming: Future[Any], place: int) -> None:
        self._coming = coming, place

    def settle(self) -> Mask:
        """The mask, once it is worked out."""
        if self._coming is not None:
            coming, place = self._coming
            self._mask, self._coming = coming.result()[place], None
        return self._mask

    def _continue(self, begun: bytes) -> None:
        if not self.matcher.take(self._texts.tokens(begun)):
            self.failure = "the turn that the answer continues does not begin as its form demands"

    def _fits(self, fits: bool) -> None:
        if not fits:
            self.failure = self.matcher.failure or "a token of the answer does not belong to its form"


def _masks(rows: Sequence[ConstrainedRow]) -> list[Mask]:
    allowed = rows[0].matchers.allowed([row.matcher for row in rows])
    return [row.mask(mask) for row, mask in zip(rows, allowed, strict=True)]


def _banned(masks: Any, vocab_size: int, device: torch.device) -> torch.Tensor:
    """Masks [rows, words] as a tensor [rows, vocabulary] bool of what is not allowed."""
    if device.type == "cpu":
        bits = numpy.unpackbits((~masks).view(numpy.uint8), axis=1, count=vocab_size, bitorder="little")
        return torch.from_numpy(bits).view(torch.bool)
    words = staged(masks, device)
    bits = (words[:, :, None] >> torch.arange(_BITS, device=device, dtype=torch.int32)) & 1
    return bits.flatten(1)[:, :vocab_size] == 0


def _mask(tokens: Sequence[int], vocab_size: int) -> Mask:
    bits = numpy.zeros(-(-vocab_size // _BITS) * _BITS, numpy.uint8)
    bits[list(tokens)] = 1
    return numpy.packbits(bits, bitorder="little").view(numpy.int32)


@lru_cache(maxsize=4)
def _vocabulary(texts: Texts, vocab_size: int) -> tuple[Mask, Mask]:
    """The tokens that the tokenizer knows, and those of them that are text: a model's own rows beyond them are none."""
    known = range(min(len(texts.pieces), vocab_size))
    return _mask(known, vocab_size), _mask([token for token in known if texts.pieces[token]], vocab_size)


@lru_cache(maxsize=4)
def _matchers(texts: Texts, vocab_size: int) -> Matchers:
    from batchchat.structure.by_llguidance import LLMatchers

    return LLMatchers(texts, vocab_size)


@cache
def _background() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="constraints")
