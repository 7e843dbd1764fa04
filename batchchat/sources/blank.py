"""Rows with nothing in them, for chats that are made from nothing: `blank:1000`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from batchchat.chats import Place, SourceRow
from batchchat.errors import UsageError
from batchchat.sources.records import Item, Reader


class BlankRows:
    """So many rows without a column."""

    def __init__(self, count: int):
        self._count = count

    @property
    def name(self) -> str:
        return f"blank:{self._count}"

    def rows(self, number: int) -> Iterator[Item]:
        for line in range(self._count):
            yield SourceRow(number + line, Place(self.name, line + 1), {})

    def fingerprint(self) -> dict[str, Any]:
        return {"path": self.name}

    def types(self) -> Mapping[str, Any] | None:
        return {}

    def count(self) -> int | None:
        return self._count


def _open(address: str, options: Any) -> BlankRows:
    if not (address.isascii() and address.isdigit() and len(address) <= 12 and int(address)):
        raise UsageError(f"blank:{address} says no number of rows; write it, for example blank:1000")
    return BlankRows(int(address))


BLANK = Reader(open_address=_open)
