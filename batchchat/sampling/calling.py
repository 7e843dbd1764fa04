"""An answer that is free but for its tool calls: what stands behind the text that opens a call must be one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy

from batchchat.chats import Request
from batchchat.sampling.masks import Mask, Texts, holds, mask_of, vocabulary
from batchchat.sampling.reasoning import Reasoning
from batchchat.structure import Matcher, Matchers, read_calls


class CallingAnswer:
    """One answer while it is written. `matcher` is that of the call that is being written, None outside of calls, where
    nothing has to be worked out."""

    def __init__(self, request: Request, texts: Texts, matchers: Matchers, vocab_size: int):
        """`matchers` know the texts of `written_texts`."""
        structure = request.settings.structured
        assert structure is not None
        self.matchers = matchers
        self.matcher: Matcher | None = None
        self.failure: str | None = None
        self.reasoning = Reasoning(texts, request.prompt_ids, begun=bool(request.continued))
        self._structure = structure
        syntax = read_calls(structure).syntax
        self._opens = syntax.opens.encode()
        self._closes = tuple(one.encode() for one in syntax.closes)
        self._goes_on = syntax.goes_on
        self._texts = texts
        self._written = written_texts(texts, marks_of(request))
        self._vocab_size = vocab_size
        self._stop_ids = frozenset(request.settings.stop_token_ids)
        self.ends = mask_of([token for token in self._stop_ids if token < vocab_size], vocab_size)
        self._tail = b""
        """The last bytes outside of calls, or within the one that is being written."""
        self._keep(request.continued.encode("utf-8", "surrogatepass"), len(self._opens))
        self._fits_behind: dict[bytes, bool] = {}
        matchers.matcher(structure)  # which fails now, if it does

    def take(self, token: int) -> None:
        """The next token. An end token is no part of the answer."""
        if token in self._stop_ids or self.failure is not None:
            return
        over = self.reasoning.state == "over"
        text = self._texts.named(token) if over else self.reasoning.take(token)
        if not text:
            return
        if self.matcher is None:
            _, opened, behind = (self._tail + text).partition(self._opens)
            if not opened:
                self._keep(text, len(self._opens))
                return
            self.matcher, self._tail, text = self.matchers.matcher(self._structure), b"", behind
        if text and not self.matcher.take(self._ids(text, token)):
            self.failure = self.matcher.failure or "a token of a call does not belong to its form"
        self._keep(text, max(map(len, self._closes), default=1))
        if self._goes_on and self.matcher.may_end:
            self.matcher, self._tail = None, b""

    def allowed(self) -> Mask:
        """What may come next, worked out now. Nothing, where `failure` says why."""
        return self.mask(None if self.matcher is None else self.matchers.allowed([self.matcher])[0])

    def mask(self, allowed: Mask) -> Mask:
        """What may come next, from what the matcher allows, which counts within a call only."""
        known, _ = vocabulary(self._texts, self._vocab_size)
        _, textual = vocabulary(self._written, self._vocab_size)
        if self.failure is None and self.matcher is not None:
            self.failure = self.matcher.failure
        if self.failure is not None:
            return numpy.zeros_like(known)
        if self.matcher is None:
            over = self.reasoning.state == "over"
            return known & ~mask_of(self._opening_wrongly(), self._vocab_size) if over else known
        allowed = allowed & textual & ~self.ends
        allowed &= ~mask_of(self._closing_early(self.matcher, allowed), self._vocab_size)
        if self.matcher.may_end:
            allowed |= self.ends
        if not allowed.any():
            self.failure = "the form of a call allows nothing more at this place, not even its end"
        return allowed

    def _opening_wrongly(self) -> Iterator[int]:
        """Tokens that would open a call and go on otherwise than it may."""
        for token in _candidates(self._texts, self._opens, self._tail):
            behind = (self._tail + self._texts.named(token)).partition(self._opens)[2]
            if not behind:
                continue
            if behind not in self._fits_behind:
                matcher = self.matchers.matcher(self._structure)
                self._fits_behind[behind] = matcher.take(self._written.tokens(behind))
            if not self._fits_behind[behind]:
                yield token

    def _closing_early(self, matcher: Matcher, allowed: Mask) -> Iterator[int]:
        """Tokens with which whoever reads the answer would see an end of the call before it is whole: within a text of
        its arguments, say."""
        for closes in self._closes:
            for token in _candidates(self._texts, closes, self._tail):
                if token < self._vocab_size and holds(allowed, token):
                    after = matcher.fork()
                    if not (after.take([token]) and after.may_end):
                        yield token

    def _ids(self, text: bytes, token: int) -> Sequence[int]:
        return [token] if text == self._written.pieces[token] else self._written.tokens(text)

    def _keep(self, text: bytes, length: int) -> None:
        self._tail = (self._tail + text)[-length:]


class WrittenTexts:
    """The texts of a vocabulary's tokens in which some special tokens have a text: that of their names."""

    def __init__(self, texts: Texts, marks: str):
        named = {token: texts.named(token) for token, piece in enumerate(texts.pieces) if not piece}
        known = {token: name for token, name in named.items() if name and name.decode("utf-8", "replace") in marks}
        self.pieces = tuple(known.get(token, piece) for token, piece in enumerate(texts.pieces))
        self._texts = texts

    def tokens(self, text: bytes) -> Sequence[int]:
        return self._texts.tokens(text)


@lru_cache(maxsize=8)
def written_texts(texts: Texts, marks: str) -> WrittenTexts:
    """The texts that calls are written with, special tokens of the syntax (`marks`) included."""
    return WrittenTexts(texts, marks)


def marks_of(request: Request) -> str:
    """Whatever of a call is the same for each."""
    structure = request.settings.structured
    assert structure is not None
    syntax = read_calls(structure).syntax
    return "\0".join((syntax.before, syntax.between, syntax.behind, syntax.again or ""))


def _candidates(texts: Texts, text: bytes, tail: bytes) -> Sequence[int]:
    """Tokens with which a text would be complete."""
    return [*texts.completing(text, tail), *texts.holding(text)]
