"""Rows of an export as files: JSON lines, CSV, Parquet, or a folder of `datasets`, in shards where asked for."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from batchchat.chats.json_text import json_text, read_exact
from batchchat.errors import UsageError
from batchchat.store.directory import replacing
from batchchat.store.parquet import column_types, write_parquet

if TYPE_CHECKING:
    from datasets import Dataset

Rows = Iterable[dict[str, Any]]

KINDS = ("jsonl", "parquet", "csv", "datasets")
_ENDINGS = {".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet", ".csv": "csv", "": "datasets"}


def kind_of(path: Path, kind: str | None) -> str:
    """What is written to a path. Raises UsageError for an ending that says nothing."""
    found = kind or _ENDINGS.get(path.suffix)
    if found is None or found not in KINDS:
        raise UsageError(f"{kind or path} is no format to export to; say --format {', '.join(KINDS)}")
    return found


def write_rows(rows: Rows, path: Path, kind: str, shard_rows: int | None = None) -> tuple[int, list[Path]]:
    """Write rows; returns how many there were, and the files. Each file appears whole. With `shard_rows`, numbered
    files hold at most so many each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "datasets":
        return _write_data_set(rows, path, shard_rows)
    iterator = iter(rows)
    count = 0
    files: list[Path] = []
    while True:
        file = path if shard_rows is None else path.with_name(f"{path.stem}-{len(files):05d}{path.suffix}")
        some = iterator if shard_rows is None else islice(iterator, shard_rows)
        first = next(some, None)
        if first is None and files:
            return count, files
        with replacing(file) as out:
            count += _WRITERS[kind](out, _chained(first, some))
        files.append(file)
        if shard_rows is None or first is None:
            return count, files


def write_shards(
    rows: Callable[[], Iterator[dict[str, Any]]], folder: Path, stem: str, shard_rows: int
) -> tuple[int, list[Path]]:
    """Write `rows()` (called anew to learn the types and to write) as Parquet files of the same columns and types,
    `STEM-00000-of-00003.parquet`, of at most `shard_rows` each; returns how many rows there were, and the files. One
    file where there are none."""
    count = 0

    def counted() -> Iterator[dict[str, Any]]:
        nonlocal count
        count = 0
        for row in rows():
            count += 1
            yield row

    types = column_types(counted, {}, facts=False)
    folder.mkdir(parents=True, exist_ok=True)
    number = max(1, -(-count // shard_rows))
    files = [folder / f"{stem}-{place:05d}-of-{number:05d}.parquet" for place in range(number)]
    left = rows()
    for file in files:
        with replacing(file) as out, _kept(islice(left, shard_rows)) as kept:
            write_parquet(out, kept, {}, types, facts=False)
    return count, files


def _chained(first: dict[str, Any] | None, others: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    if first is not None:
        yield first
        yield from others


def _write_lines(file: IO[bytes], rows: Rows) -> int:
    count = 0
    for row in rows:
        file.write(json_text(row).encode("utf-8") + b"\n")
        count += 1
    return count


def _write_csv(file: IO[bytes], rows: Rows) -> int:
    """With the columns of all rows, which are kept on the disk until all names are known. Lists are JSON."""
    with _kept(rows) as kept:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.DictWriter(text, kept.names, restval="")
        writer.writeheader()
        for row in kept():
            writer.writerow({name: _cell(value) for name, value in row.items()})
        text.detach()
        return kept.count


def _write_parquet(file: IO[bytes], rows: Rows) -> int:
    with _kept(rows) as kept:
        return write_parquet(file, kept, {}, facts=False)


_WRITERS: dict[str, Callable[[IO[bytes], Rows], int]] = {
    "jsonl": _write_lines,
    "csv": _write_csv,
    "parquet": _write_parquet,
}


def _write_data_set(rows: Rows, path: Path, shard_rows: int | None) -> tuple[int, list[Path]]:
    """As `datasets.load_from_disk` reads it."""
    from datasets import Dataset

    with tempfile.TemporaryDirectory(prefix="batchchat-") as place:
        file = Path(place) / "rows.parquet"
        with open(file, "wb") as out:
            count = _write_parquet(out, rows)
        found = Dataset.from_parquet(str(file), cache_dir=place)
        shards = None if shard_rows is None else max(1, -(-count // shard_rows))
        fresh = path.with_name(f".{path.name}.tmp")
        shutil.rmtree(fresh, ignore_errors=True)
        found.save_to_disk(str(fresh), num_shards=shards)
    if path.exists():
        shutil.rmtree(path)
    fresh.rename(path)
    return count, [path]


def collected(rows: Rows) -> Dataset:
    """Rows as a data set, which lies on the disk until the process ends."""
    from datasets import Dataset

    place = tempfile.TemporaryDirectory(prefix="batchchat-")
    file = Path(place.name) / "rows.parquet"
    with open(file, "wb") as out:
        _write_parquet(out, rows)
    found = Dataset.from_parquet(str(file), cache_dir=place.name)
    weakref.finalize(found, place.cleanup)
    return found


class _kept:  # noqa: N801 - reads as a noun in a with statement
    """Rows that can be read again, on the disk, with the names of all their columns."""

    def __init__(self, rows: Rows):
        self._file = tempfile.TemporaryFile()
        self.count = 0
        names: dict[str, None] = {}
        for row in rows:
            names |= dict.fromkeys(row)
            self._file.write(json_text(row).encode("utf-8") + b"\n")
            self.count += 1
        self.names = list(names)

    def __enter__(self) -> _kept:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __call__(self) -> Iterator[dict[str, Any]]:
        self._file.seek(0)
        place = 0
        while line := self._file.readline():
            place += len(line)
            yield read_exact(line.decode("utf-8"))
            self._file.seek(place)  # two readers may be at work one after the other, never in step


def _cell(value: Any) -> Any:
    if isinstance(value, bool | list | dict):
        return json_text(value)
    return "" if value is None else value
