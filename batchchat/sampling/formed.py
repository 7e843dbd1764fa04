"""An answer that must have a form as a whole, its reasoning apart."""

from __future__ import annotations

import numpy

from batchchat.chats import Request
from batchchat.sampling.masks import Mask, Texts, mask_of, vocabulary
from batchchat.sampling.reasoning import Reasoning
from batchchat.structure import Matcher, Matchers


class FormedAnswer:
    """One answer while it is written."""

    def __init__(self, request: Request, texts: Texts, matchers: Matchers, vocab_size: int):
        structure = request.settings.structured
        assert structure is not None
        self.matchers = matchers
        self.matcher: Matcher = matchers.matcher(structure)
        self.failure: str | None = None
        begun = request.continued
        self.reasoning = Reasoning(texts, request.prompt_ids, begun=bool(begun))
        self.ends = mask_of([token for token in request.settings.stop_token_ids if token < vocab_size], vocab_size)
        self._texts = texts
        self._vocab_size = vocab_size
        self._stop_ids = frozenset(request.settings.stop_token_ids)
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
        known, textual = vocabulary(self._texts, self._vocab_size)
        if self.failure is None:
            self.failure = self.matcher.failure
        if self.failure is not None:
            return numpy.zeros_like(known)
        if self.reasoning.state == "open":
            return known & ~self.ends
        allowed = allowed & textual & ~self.ends
        if self.reasoning.further:
            allowed |= mask_of(self.reasoning.further, self._vocab_size)
        if self.matcher.may_end:
            allowed |= self.ends
        if not allowed.any():
            self.failure = "the form of the answer allows nothing more at this place, not even its end"
        return allowed

    def _continue(self, begun: bytes) -> None:
        if not self.matcher.take(self._texts.tokens(begun)):
            self.failure = "the turn that the answer continues does not begin as its form demands"

    def _fits(self, fits: bool) -> None:
        if not fits:
            self.failure = self.matcher.failure or "a token of the answer does not belong to its form"
