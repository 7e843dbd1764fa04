"""Rows out of Arrow batches, for the readers of Parquet and of data sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from batchchat.chats import Place, RowError, SourceRow
from batchchat.chats.arrow import FREE_FORM, JSON_COLUMN, as_is, to_json
from batchchat.chats.json_text import checked_depth, loose_text
from batchchat.errors import UsageError
from batchchat.sources.records import Item

Data = tuple[dict[str, Any], str | None]


class ArrowRows:
    """Makes rows of the batches of one schema. Raises UsageError where a column's type has no place in a row."""

    def __init__(self, name: str, schema: Any):
        import pyarrow as pa

        self.types: dict[str, Any] = {}
        for field in schema:
            marked = (field.metadata or {}).items() >= JSON_COLUMN.items() and pa.types.is_string(field.type)
            self.types[field.name] = pa.json_() if marked else field.type
        try:
            converts = {column: to_json(kind, column in FREE_FORM) for column, kind in self.types.items()}
        except TypeError as error:
            raise UsageError(f"{name} cannot be read as rows: {error}; leave that column out") from None
        self._converts = {column: convert for column, convert in converts.items() if convert is not as_is}
        self._has_json = "arrow.json" in " ".join(map(str, self.types.values()))

    def items(self, batch: Any, number: int, file: str, line: int) -> Iterator[Item]:
        """The rows of a batch, numbered and placed from `number` and `line` on; each bad value costs its row."""
        for place, data in enumerate(self._read(batch)):
            here = Place(file, line + place)
            if isinstance(data, str):
                yield RowError(number + place, here, data, "")
            else:
                yield SourceRow(number + place, here, *data)

    def _read(self, batch: Any) -> Iterator[Data | str]:
        try:
            rows = [self._row(row) for row in batch.to_pylist()]
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            # text that is not UTF-8, a key twice, a year beyond 9999, a cell that is not JSON
            if batch.num_rows == 1:
                yield f"the row has a value that cannot be read: {first_line(error)}"
                return
            for place in range(batch.num_rows):
                yield from self._read(batch.slice(place, 1))
            return
        yield from rows

    def _row(self, data: dict[str, Any]) -> Data:
        for column, convert in self._converts.items():
            data[column] = convert(data[column])
        if not self._has_json:
            return data, None
        text = loose_text(data)
        return checked_depth(json.loads(text), text), text


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
