"""What all readers share: the reader's contract, JSON values out of Python ones, the raw text of bad rows."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from batchchat.chats import RowError, SourceRow
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
    """A bad row as text to keep. Bytes that are not UTF-8 are escaped; a long text is cut and says so."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    if len(text) <= RAW_LIMIT:
        return text
    return f"{text[:RAW_LIMIT]}… [cut: the row has {len(text):,} characters]"


def json_reason(error: ValueError | RecursionError) -> str:
    """Why a text is not JSON, without its position."""
    if isinstance(error, json.JSONDecodeError):
        reason = error.msg.removesuffix(" at")
        return reason[0].lower() + reason[1:]
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def plain(value: Any) -> Any:
    """A value as JSON can hold it: times in ISO 8601, durations in seconds, decimals as their digits, bytes in
    base64."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
        case bytes():
            return base64.b64encode(value).decode("ascii")
    raise TypeError(f"a {type(value).__name__} has no place in a row")
