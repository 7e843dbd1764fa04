"""The input of a run: all its files and data sets as one stream of rows."""

from __future__ import annotations

import json
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from batchchat.chats import SourceRow
from batchchat.errors import UsageError
from batchchat.plugins.tables import SOURCES
from batchchat.sources.copies import copy_from, is_address, spool
from batchchat.sources.data_sets import DatasetRows, hub_splits, is_saved, open_hub, open_saved, require_in_reach
from batchchat.sources.files import DataFile
from batchchat.sources.opening import OptionsOf, named_source, open_file, options_for
from batchchat.sources.paths import files_in, find
from batchchat.sources.records import Item, Part, Reader
from batchchat.sources.splits import files_by_split

STDIN = "-"


class Source:
    """Rows from the first file's first to the last one's last, numbered through from 0.

    A context manager: closing it removes what was copied from standard input.
    """

    def __init__(self, parts: Sequence[Part], columns: Sequence[str] | None, stack: ExitStack):
        self._parts = tuple(parts)
        self._columns = columns
        self._stack = stack
        self._fingerprint: list[dict[str, Any]] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files and data sets, as messages call them."""
        return tuple(part.name for part in self._parts)

    def rows(self) -> Iterator[Item]:
        """Every row, good or bad, read anew on each call. Memory is bounded by a line or a few rows."""
        number = 0
        for part in self._parts:
            for item in part.rows(number):
                yield item if self._columns is None else _only(item, self._columns)
                number = item.number + 1

    def fingerprint(self) -> list[dict[str, Any]]:
        """What the content is known by, one mapping per file (path, bytes, sha256) or data set. Reads every file once,
        the first time."""
        if self._fingerprint is None:
            self._fingerprint = [part.fingerprint() for part in self._parts]
        return self._fingerprint

    def count(self) -> int | None:
        """How many rows there are, where that costs nothing: Parquet says so, and the fingerprint of an uncompressed
        JSONL file counts its lines on the way. None otherwise."""
        counts = [part.count() for part in self._parts]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def types(self) -> dict[str, Any]:
        """The Arrow types of the columns that have one and the same in every part. Empty where a part has none."""
        parts = [part.types() for part in self._parts]
        found: dict[str, Any] = {}
        for types in parts:
            if types is None:
                return {}
            for column, kind in types.items():
                if found.setdefault(column, kind) != kind:
                    found[column] = None
        return {column: kind for column, kind in found.items() if kind is not None}

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(
    paths: Sequence[str],
    *,
    split: str | None = None,
    subset: str | None = None,
    revision: str | None = None,
    streaming: bool = True,
    columns: Sequence[str] | None = None,
    options: OptionsOf = lambda name: None,
) -> Source:
    """Find and open the input. `split` is for data sets and folders of files, `subset`, `revision` and `streaming` are
    for data sets, `columns` are the only columns that are read (None: all), `options` gives those of a kind of source.

    A path is a file or glob, "-" (standard input), "builtin:NAME" (a sample that comes along), a folder of data files
    or one that `datasets` saved, or a hub id; the kind of source may stand before it ("csv:-"). Every file is looked
    into, so that what cannot be read at all is a UsageError here, before anything is done.
    """
    if isinstance(paths, str):
        raise TypeError("paths is a list of paths")
    stack = ExitStack()
    try:
        parts: list[Part] = []
        for path in paths:
            named = named_source(path)
            if named is not None:
                parts += _open_named(stack, *named, options, split)
                continue
            if path == STDIN:
                parts.append(open_file(spool(stack, STDIN, _stdin()), columns, options))
                continue
            for found in copy_from(stack, path) if is_address(path) else find(path, split):
                match found:
                    case DataFile():
                        parts.append(open_file(_regular(stack, found), columns, options))
                    case Path():
                        parts.append(open_saved(path, found, split=split, columns=columns))
                    case str():
                        if streaming:  # otherwise the library may have it already
                            require_in_reach(found, revision)
                        parts.append(
                            open_hub(
                                found,
                                split=split,
                                subset=subset,
                                revision=revision,
                                streaming=streaming,
                                columns=columns,
                            )
                        )
        in_folder = any(Path((named_source(path) or ("", path))[1]).expanduser().is_dir() for path in paths)
        _check(parts, split=None if in_folder else split, subset=subset, revision=revision)
    except BaseException:
        stack.close()
        raise
    return Source(parts, columns, stack)


def splits_of(path: str, subset: str | None = None) -> list[str]:
    """The splits among which `source.split` chooses for a folder, a folder that `datasets` saved or a data set of the
    hub; none where there is nothing to choose. Raises what `open_source` raises of it."""
    here = Path(path).expanduser()
    if here.is_dir():
        listed = here / "dataset_dict.json"
        if listed.is_file():
            return list(json.loads(listed.read_text(encoding="utf-8"))["splits"])
        return [] if is_saved(here) else list(files_by_split(files_in(path, here)))
    if path == STDIN or named_source(path) is not None:
        return []
    named = [found for found in find(path) if isinstance(found, str)]
    for name in named:
        require_in_reach(name, None)
    return [split for name in named for split in hub_splits(name, subset)]


def _open_named(stack: ExitStack, name: str, rest: str, options: OptionsOf, split: str | None) -> Iterator[Part]:
    """What a path behind the name of a kind of source stands for."""
    reader: Reader = SOURCES[name]
    own = options_for(name, options)
    if reader.open_address is not None:
        yield reader.open_address(rest, own)
        return
    assert reader.open_file is not None, "a reader opens files or addresses"
    if rest == STDIN:
        files: Sequence[object] = [spool(stack, STDIN, _stdin())]
    else:
        files = copy_from(stack, rest) if is_address(rest) else find(rest, split)
    for found in files:
        if not isinstance(found, DataFile):
            raise UsageError(f"{name}:{rest} is a data set, but the source {name} reads files: name them")
        yield reader.open_file(_regular(stack, found), own)


def _regular(stack: ExitStack, file: DataFile) -> DataFile:
    """The file, or a copy of it where it is a pipe, which can be read only once."""
    try:
        mode = file.path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{file.name} cannot be read: {error.strerror or error}") from None
    if not stat.S_ISFIFO(mode):
        return file
    with file.path.open("rb") as pipe:
        return spool(stack, file.name, pipe)


def _stdin() -> BinaryIO:
    if sys.stdin is None or sys.stdin.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise UsageError(f"standard input is {what}: pipe the rows in (cat chats.jsonl | batchchat run …)")
    return sys.stdin.buffer


def _check(parts: Sequence[Part], **dataset_options: str | None) -> None:
    names = [part.name for part in parts]
    twice = next((name for name, times in Counter(names).items() if times > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is named twice in source.path: name it once")
    if not any(isinstance(part, DatasetRows) for part in parts):
        for option, value in dataset_options.items():
            if value is not None:
                raise UsageError(
                    f"source.{option} is for data sets, but {', '.join(names[:3])} is read as files: remove it"
                )


def _only(item: Item, columns: Sequence[str]) -> Item:
    if not isinstance(item, SourceRow):
        return item
    return SourceRow(item.number, item.place, {name: item.data[name] for name in columns if name in item.data})
