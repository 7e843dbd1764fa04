"""What a library has to do so that answers can be kept in a form."""

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
