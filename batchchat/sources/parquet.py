"""Parquet files, read in small batches of one row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from batchchat.chats import Place, RowError
from batchchat.errors import EnvironmentFault, UsageError
from batchchat.sources.arrow_rows import ArrowRows, first_line
from batchchat.sources.files import DataFile
from batchchat.sources.records import Item

_BATCH_ROWS = 256


class ParquetRows:
    """Rows of a Parquet file; a row's line is its number in the file, from 1.

    Values are made JSON as `chats.arrow` says. The file's footer says how many rows each group has, so each row of a
    damaged group is a bad row. `columns` are read, None for all. Raises UsageError for a file that is damaged at its
    footer, lacks a column or has one that rows cannot hold.
    """

    def __init__(self, file: DataFile, columns: Sequence[str] | None):
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.name = file.name
        self._file = file
        try:
            with pq.ParquetFile(file.path) as opened:
                self._num_rows = [opened.metadata.row_group(group).num_rows for group in range(opened.num_row_groups)]
                schema = opened.schema_arrow
                names = schema.names
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UsageError(
                f"{file.name} is not a whole Parquet file ({first_line(error)}): make or copy it anew"
            ) from None
        _check_names(file.name, names, columns)
        self._columns = None if columns is None else list(columns)
        self._rows = ArrowRows(file.name, schema if columns is None else pa.schema(map(schema.field, columns)))

    def rows(self, number: int) -> Iterator[Item]:
        line = 1
        for group, num_rows in enumerate(self._num_rows):
            end = line + num_rows
            reason = f"row group {group + 1} ends too early"
            try:
                for batch in self._batches(group):
                    yield from self._rows.items(batch, number, self.name, line)
                    number, line = number + batch.num_rows, line + batch.num_rows
            except _DamagedGroupError as error:
                reason = f"row group {group + 1} is damaged from here on ({error}): make or copy the file anew"
            for line in range(line, end):  # noqa: B020 - goes on where the group stopped
                yield RowError(number, Place(self.name, line), reason, "")
                number += 1
            line = end

    def fingerprint(self) -> dict[str, Any]:
        return {"path": self.name, "bytes": self._file.path.stat().st_size, "sha256": self._file.sha256()}

    def count(self) -> int | None:
        return sum(self._num_rows)

    def types(self) -> Mapping[str, Any]:
        return self._rows.types

    def _batches(self, group: int) -> Iterator[Any]:
        """The rows of a group. Raises _DamagedGroupError."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self._file.path, page_checksum_verification=True) as opened:
                yield from opened.iter_batches(
                    _BATCH_ROWS, row_groups=[group], columns=self._columns, use_threads=False
                )
        except OSError as error:
            if error.errno is not None:  # the disk's fault, not the file's
                raise EnvironmentFault(f"{self.name} cannot be read any further: {error.strerror}") from error
            raise _DamagedGroupError(first_line(error)) from None
        except pa.ArrowNotImplementedError as error:
            raise _DamagedGroupError(f"or too large for the reader: {first_line(error)}") from None
        except pa.ArrowException as error:
            raise _DamagedGroupError(first_line(error)) from None


class _DamagedGroupError(Exception):
    """The rest of a row group cannot be read."""


def _check_names(name: str, present: Sequence[str], wanted: Sequence[str] | None) -> None:
    twice = next((column for column in present if present.count(column) > 1), None)
    if twice is not None:
        raise UsageError(f"{name} has two columns called {twice}: rename one of them")
    for column in wanted or ():
        if column not in present:
            near = get_close_matches(column, present, 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(present)}"
            raise UsageError(f"{name} has no column {column}; {hint}")
