"""What all readers share: the reader's contract, the raw text of bad rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from batchchat.chats import RowError, SourceRow
from batchchat.chats.formats.values import check_text
from batchchat.chats.json_text import NotStrictError, encodable
from batchchat.sources.files import DataFile

RAW_LIMIT = 1_000_000
"""Characters of a bad row that are kept."""

Item = SourceRow | RowError


class Part(Protocol):
    """One file or data set of a source."""

    @property
    def name(self) -> str: ...

    def rows(self, number: int) -> Iterator[Item]:
        """Its rows in order, numbered from `number` on."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What its content is known by: another content has another fingerprint."""
        ...

    def types(self) -> Mapping[str, Any] | None:
        """The Arrow type of each column, None where columns have no types."""
        ...

    def count(self) -> int | None:
        """How many rows it has, where that is known without reading them all."""
        ...


@dataclass(frozen=True)
class Reader:
    """A kind of source: how what a path names becomes rows. One of the two callables is given.

    `open_file(file, options)` reads one data file, wherever it was found; `open_address(address, options)` what stands
    behind `NAME:` in source.path, whatever that means. Both look into it, and raise UsageError where it cannot be
    read. `options` is the model of the kind's own options, which become the section `source.NAME` of the recipe.
    """

    open_file: Callable[[DataFile, Any], Part] | None = None
    open_address: Callable[[str, Any], Part] | None = None
    options: type[Any] | None = None


def raw_text(text: str | bytes) -> str:
    """A bad row as text to keep. Bytes that are not UTF-8 (in a text the surrogates that stand for them) are escaped; a
    long text is cut and says so."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    elif encodable(text) != text:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if len(text) <= RAW_LIMIT:
        return text
    return f"{text[:RAW_LIMIT]}… [cut: the row has {len(text):,} characters]"


def json_reason(error: ValueError | RecursionError) -> str:
    """Why a text is not JSON, without its position."""
    if isinstance(error, json.JSONDecodeError):
        reason = error.msg.removesuffix(" at")
        return reason[0].lower() + reason[1:]
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error) if isinstance(error, NotStrictError) else "a whole number exceeds the limit of 4,300 digits"


def checked_names(data: dict[str, Any]) -> dict[str, Any]:
    """`data` if the names of its columns are text. Raises BadRow: no table and no report can hold any other."""
    for name in data:
        check_text(name, "the name of a column")
    return data
