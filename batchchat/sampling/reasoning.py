"""Where the reasoning of an answer ends: until then it is free, whatever form the answer must have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, Protocol

_OPEN, _CLOSE = b"<think>", b"</think>"
_LINE_BREAKS = 2
"""As many may stand between the reasoning and the answer: models are used to them, and they are no part of it."""

State = Literal["may open", "open", "closed", "over"]


class NamedTexts(Protocol):
    """What each token adds to a text, special tokens by their names (`prompts.token_texts`)."""

    @property
    def thinks(self) -> bool:
        """Whether the model is known to reason between think marks."""
        ...

    @property
    def pieces(self) -> Sequence[bytes]: ...

    def __hash__(self) -> int: ...

    def named(self, token: int) -> bytes:
        """A token's bytes; of a special one those of its name."""
        ...


class Reasoning:
    """The reasoning of one answer. `may open`: it has not begun, and the first token decides; `open`: it goes on;
    `closed`: line breaks may follow; `over`: all else is the answer."""

    def __init__(self, texts: NamedTexts, prompt_ids: Sequence[int], begun: bool = False):
        """`begun`: the prompt ends within the answer."""
        self._texts = texts
        self._tail = b""
        self._breaks = 0
        self.state: State = "over"
        if texts.thinks:
            end = b"".join(map(texts.named, prompt_ids[-8:])).rstrip()
            self.state = "open" if end.endswith(_OPEN) else "over" if begun or end.endswith(_CLOSE) else "may open"

    @property
    def further(self) -> Sequence[int]:
        """Tokens that may come besides those of the answer."""
        if self.state == "may open":
            return _spelling(self._texts, _OPEN)
        return _line_breaks(self._texts) if self.state == "closed" else ()

    def take(self, token: int) -> bytes | None:
        """The next token: None where all of it belongs to the reasoning, else what of it belongs to the answer."""
        text = self._texts.named(token)
        match self.state:
            case "may open":
                self.state = "open" if text == _OPEN else "over"
                return None if self.state == "open" else text
            case "open":
                before, found, after = (self._tail + text).partition(_CLOSE)
                self._tail = before[-len(_CLOSE) :]
                if not found:
                    return None
                self.state = "closed"
                rest = after.lstrip(b"\n")
                return self._over(rest) if rest else None
            case "closed":
                self._breaks += len(text)
                if text.strip(b"\n") == b"" and self._breaks <= _LINE_BREAKS:
                    return None
                return self._over(text)
            case "over":
                return text

    def _over(self, text: bytes) -> bytes:
        self.state = "over"
        return text


@lru_cache(maxsize=8)
def _spelling(texts: NamedTexts, text: bytes) -> tuple[int, ...]:
    return tuple(token for token in range(len(texts.pieces)) if texts.named(token) == text)


@lru_cache(maxsize=8)
def _line_breaks(texts: NamedTexts) -> tuple[int, ...]:
    return tuple(token for count in range(1, _LINE_BREAKS + 1) for token in _spelling(texts, b"\n" * count))
