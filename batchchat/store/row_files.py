"""Rows as a file of any kind that is also read: JSON lines, a JSON array, Parquet, CSV, compressed or not."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from batchchat.chats.json_text import json_text
from batchchat.errors import UsageError
from batchchat.store.parquet import write_parquet

Rows = Callable[[], Iterator[dict[str, Any]]]

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
KINDS = (".jsonl", ".json", ".parquet", ".csv", ".tsv")


@dataclass(frozen=True)
class Written:
    """How many rows a file got; of a table the columns that are JSON, and how many nulls became empty texts."""

    rows: int
    json_columns: tuple[str, ...] = ()
    nulls: int = 0


def suffixes(path: Path) -> tuple[str, str]:
    """Kind and compression ("" for none) as a file's name says them. Raises UsageError for what cannot be written."""
    compression = path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""
    kind = Path(path.name[: len(path.name) - len(compression)]).suffix.lower()
    if kind not in KINDS or (kind == ".parquet" and compression):
        raise UsageError(
            f"{path} says no kind of file that can be written; end its name in {', '.join(KINDS)} (all but .parquet "
            f"may have {', '.join(COMPRESSIONS)} behind it)"
        )
    return kind, compression


def write_rows(file: IO[bytes], path: Path, rows: Rows, types: Mapping[str, Any]) -> Written:
    """Write `rows()`, which Parquet and tables call anew to learn their columns, as the name of `path` says. `types`
    are Arrow types of columns, for Parquet."""
    kind, compression = suffixes(path)
    if kind == ".parquet":
        return Written(write_parquet(file, rows, types, facts=False))
    with closing(_compressed(file, compression)) as out:
        if kind == ".json":
            return Written(_write_array(out, rows()))
        if kind in (".csv", ".tsv"):
            return _write_table(out, rows, "\t" if kind == ".tsv" else ",")
        count = 0
        for count, row in enumerate(rows(), start=1):  # noqa: B007 - the count of all
            out.write(json_text(row).encode("utf-8") + b"\n")
        return Written(count)


def _write_array(out: Any, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    for row in rows:
        out.write((",\n" if count else "[\n").encode() + json_text(row).encode("utf-8"))
        count += 1
    out.write(b"\n]\n" if count else b"[]\n")
    return count


def _write_table(out: Any, rows: Rows, delimiter: str) -> Written:
    """Texts as they are; a column that holds anything else is JSON in every row."""
    columns: dict[str, bool] = {}
    for row in rows():
        for name, value in row.items():
            columns[name] = columns.get(name, False) or not isinstance(value, str | None)
    text = io.TextIOWrapper(out, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(columns)
    count = nulls = 0
    for row in rows():
        values = [row.get(name) for name in columns]
        nulls += sum(value is None and not is_json for value, is_json in zip(values, columns.values(), strict=True))
        writer.writerow([_cell(value, is_json) for value, is_json in zip(values, columns.values(), strict=True)])
        count += 1
    text.detach()
    return Written(count, tuple(name for name, is_json in columns.items() if is_json), nulls)


def _cell(value: Any, is_json: bool) -> str:
    if value is None:
        return ""
    return json_text(value) if is_json else value


class _Plain(io.RawIOBase):
    """A file that stays open when what is written into it is closed."""

    def __init__(self, file: IO[bytes]):
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)


def _compressed(file: IO[bytes], compression: str) -> Any:
    match compression:
        case ".gz":
            return gzip.GzipFile("", "wb", fileobj=file, mtime=0)
        case ".bz2":
            return bz2.BZ2File(file, "wb")
        case ".xz":
            return lzma.LZMAFile(file, "wb")
        case ".zst":
            import zstandard

            return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
    return _Plain(file)
