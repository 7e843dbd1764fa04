"""CSV and TSV files: one record of text values for each row, under the names of a header."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import islice
from typing import Annotated, Any

from pydantic import Field

from batchchat.chats import Place, RowError, SourceRow
from batchchat.chats.json_text import json_text, read_row
from batchchat.errors import BadRow, UsageError
from batchchat.recipe.section import Section, Texts
from batchchat.sources.files import BrokenStreamError, DataFile
from batchchat.sources.jsonl import BOM, split_lines
from batchchat.sources.paths import data_suffix
from batchchat.sources.records import Item, Reader, json_reason, raw_text

_DELIMITERS = (",", ";", "\t", "|")
"""Among which the delimiter of a .csv file is found out; of equals the first."""
_SNIFFED_RECORDS = 50
_LONGEST_RECORD = 1 << 24
"""Characters within which a quote that opens must close."""


class CsvOptions(Section):
    """How CSV and TSV files are read. Values are texts: no number, date or truth value is guessed."""

    delimiter: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = Field(
        default=None,
        description="The character between two values; null is a tab in .tsv files, and otherwise found out from the "
        "first records, of comma, semicolon, tab and |.",
        examples=[";"],
    )
    column_names: Annotated[Texts, Field(min_length=1)] | None = Field(
        default=None,
        description="Names of the columns, for files without a header; null takes them from the first record.",
        examples=[["id", "question", "answer"]],
    )
    json_columns: Texts = Field(
        default=(),
        description="Columns whose values are JSON, such as a list of messages; an empty value is null.",
        examples=[["messages"]],
    )


class DelimitedRows:
    """Rows of a CSV file as RFC 4180 has it, compressed or not: values may stand in double quotes, and then hold
    delimiters, line ends, and quotes written twice.

    A row's line is the one that it begins on. Blank lines are counted and passed over, a byte order mark at the start
    is dropped. A record that has more or fewer values than the header, or a quote in a wrong place, is a bad row; where
    a quote never closes, one bad row stands for the rest of the file. Memory is bounded by the longest record. Raises
    UsageError for a header that cannot be used.
    """

    def __init__(self, file: DataFile, options: CsvOptions):
        self.name = file.name
        self._file = file
        self._json = options.json_columns
        self._delimiter = options.delimiter or self._sniff()
        self._has_header = options.column_names is None
        self._names = tuple(options.column_names or self._header())
        self._check_names()

    def rows(self, number: int) -> Iterator[Item]:
        records = _Records(self._file, self._delimiter)
        if self._has_header:
            next(records, None)
        for line, values, text in records:
            place = Place(self.name, line)
            try:
                if isinstance(values, str):
                    raise BadRow(values)
                yield SourceRow(number, place, self._data(values, text), self._exact(values))
            except BadRow as error:
                yield RowError(number, place, str(error), raw_text(_as_bytes(text)))
            number += 1

    def types(self) -> None:
        """Columns have no types."""

    def fingerprint(self) -> dict[str, Any]:
        return {"path": self.name, "bytes": self._file.path.stat().st_size, "sha256": self._file.sha256()}

    def count(self) -> int | None:
        return None

    def _data(self, values: list[str], text: str) -> dict[str, Any]:
        _require_utf8(text)
        if len(values) != len(self._names):
            raise BadRow(
                f"the row has {_counted(len(values), 'value')}, but there are {_counted(len(self._names), 'column')}: "
                "put values that hold the delimiter or a line end in double quotes"
            )
        data: dict[str, Any] = dict(zip(self._names, values, strict=True))
        for name in self._json:
            data[name] = _from_json(name, data[name])
        return data

    def _exact(self, values: list[str]) -> str | None:
        """The row as JSON text, so that the digits of numbers in it are kept; None where no column is JSON."""
        if not self._json:
            return None
        texts = (
            (value or "null") if name in self._json else json_text(value)
            for name, value in zip(self._names, values, strict=True)
        )
        pairs = (f"{json_text(name)}: {text}" for name, text in zip(self._names, texts, strict=True))
        return f"{{{', '.join(pairs)}}}"

    def _header(self) -> list[str]:
        found = next(_Records(self._file, self._delimiter), None)
        if found is None:
            raise UsageError(f"{self.name} is empty: it needs a header, or source.csv.column_names")
        line, values, text = found
        try:
            _require_utf8(text)
        except BadRow as error:
            raise UsageError(f"{self.name}:{line}: the header cannot be read: {error}") from None
        if isinstance(values, str):
            raise UsageError(f"{self.name}:{line}: the header cannot be read: {values}")
        return values

    def _check_names(self) -> None:
        twice = next((name for name in self._names if self._names.count(name) > 1), None)
        if twice is not None:
            called = f"called {twice}" if twice else "without a name"
            raise UsageError(f"{self.name} has two columns {called}: rename one of them")
        for name in self._json:
            if name not in self._names:
                near = get_close_matches(name, self._names, 1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(self._names)}"
                raise UsageError(f"{self.name} has no column {name}, which source.csv.json_columns names; {hint}")

    def _sniff(self) -> str:
        """The delimiter by which the first records agree on their number of values, best and then widest."""
        if data_suffix(self._file.path.name) == ".tsv":
            return "\t"

        def agreement(delimiter: str) -> tuple[float, int]:
            records = islice(_Records(self._file, delimiter), _SNIFFED_RECORDS)
            widths = [len(values) if isinstance(values, list) else 0 for _, values, _ in records]
            if not widths or widths[0] < 2:
                return 0.0, 0
            return widths.count(widths[0]) / len(widths), widths[0]

        return max(_DELIMITERS, key=agreement)


class _Records:
    """The records of a file, one after the other: (first line, values or what is wrong, text)."""

    def __init__(self, file: DataFile, delimiter: str):
        # Bytes that are no UTF-8 become lone surrogates, so that they cost the record that they stand in and no more.
        self._lines = (line.decode("utf-8", "surrogateescape") for line in split_lines(file.chunks()))
        self._line = 0
        self._record: list[str] = []
        self._length = 0
        self._broken: str | None = None
        csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_RECORD))  # the process has one limit for all readers
        self._reader = csv.reader(self._feed(), delimiter=delimiter, strict=True)

    def __iter__(self) -> _Records:
        return self

    def __next__(self) -> tuple[int, list[str] | str, str]:
        while True:
            first = self._line + 1
            self._record, self._length = [], 0
            try:
                values: list[str] | str = next(self._reader)
            except StopIteration:
                if self._broken is None:
                    raise
                values, self._broken = self._broken, None
            except csv.Error as error:
                values = self._reason(error)
            if values:
                return first, values, "".join(self._record).rstrip("\r\n")

    def _feed(self) -> Iterator[str]:
        """The lines with their ends, each kept as part of the record that the reader is at."""
        try:
            for line in self._lines:
                self._line += 1
                if self._line == 1:
                    line = line.removeprefix(_BOM)
                self._record.append(f"{line}\n")
                self._length += len(line) + 1
                if self._length > _LONGEST_RECORD and len(self._record) > 1:
                    return  # within a quote, which to the reader then never closes
                yield self._record[-1]
        except BrokenStreamError as broken:
            self._broken = f"{broken}, and the rows behind it cannot be read: make or copy the file anew"
            self._record.append(broken.rest.decode("utf-8", "surrogateescape"))

    def _reason(self, error: csv.Error) -> str:
        if self._broken is not None:
            reason, self._broken = self._broken, None
            return reason
        words = str(error)
        if "unexpected end of data" in words:
            return "a double quote opens in this row and never closes, so no row behind it can be read"
        if "new-line character" in words:
            return "a line ends in a carriage return alone: end lines in a line feed (tr '\\r' '\\n')"
        return f"the row is not CSV: {words}, so write a double quote in a quoted value twice"


_BOM = BOM.decode("utf-8")


def _as_bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _require_utf8(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        byte = _as_bytes(text[error.start])[0]
        raise BadRow(f"the row is not UTF-8 (it holds the byte 0x{byte:02x}): save the file as UTF-8") from None


def _from_json(name: str, text: str) -> Any:
    if not text:
        return None
    try:
        return read_row(text)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"column {name} is not JSON: {json_reason(error)}") from None


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


CSV = Reader(DelimitedRows, options=CsvOptions)
