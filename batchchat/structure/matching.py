"""What a library has to do so that answers can be kept in a form (`backends` names those that can)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from batchchat.chats import Structure


class TokenBytes(Protocol):
    """The bytes of a vocabulary's tokens (`prompts.token_texts`)."""

    @property
    def pieces(self) -> Sequence[bytes]:
        """By token id; special tokens have none."""
        ...

    def tokens(self, text: bytes) -> Sequence[int]:
        """Ids whose bytes, in a row, are a text."""
        ...


class Matcher(Protocol):
    """One answer while it is written."""

    def take(self, ids: Sequence[int]) -> bool:
        """It goes on with these tokens. False where its form does not allow them; it has failed then."""
        ...

    def fork(self) -> Matcher:
        """Another one at the same place, which goes its own way."""
        ...

    @property
    def may_end(self) -> bool:
        """Whether it is whole as it stands."""
        ...

    @property
    def failure(self) -> str | None:
        """Why nothing more can be said of it: a limit of the library was reached."""
        ...


class Matchers(Protocol):
    """Matchers for the tokens of one vocabulary."""

    def matcher(self, structure: Structure) -> Matcher:
        """A matcher at the beginning of an answer. Raises BadRow for a form that cannot be kept (`refusal`)."""
        ...

    def allowed(self, matchers: Sequence[Matcher]) -> Any:
        """What may come next for each matcher: a numpy array [matchers, words] int32, bit n of a row for token n. An
        end token is none of them. May use threads of its own, and waits for them without holding Python's lock."""
        ...


class Backend(Protocol):
    """The module of a library. Each function raises EnvironmentFault where the library is not installed."""

    def matchers(self, texts: TokenBytes, vocab_size: int) -> Matchers:
        """For a vocabulary of `vocab_size` ids, of which `texts` knows the first ones."""
        ...

    def not_kept(self, structure: Structure) -> str | None:
        """What of a form the library does not keep, in one sentence without its beginning and end; None where it keeps
        all of it."""
        ...


class Bytes:
    """The vocabulary of a text itself."""

    pieces = tuple(bytes([number]) for number in range(256))

    def tokens(self, text: bytes) -> Sequence[int]:
        return tuple(text)


BYTES = Bytes()


def one_line(error: str) -> str:
    """A library's error as a part of a sentence."""
    return " ".join(error.split())[:300].rstrip(".;: ")
