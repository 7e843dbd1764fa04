"""The reader for a data file: the one that its path names, else chosen by what the file holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from batchchat.errors import UsageError
from batchchat.plugins.tables import SOURCES
from batchchat.sources.delimited import DelimitedRows
from batchchat.sources.files import BrokenStreamError, DataFile
from batchchat.sources.jsonarray import JsonArray
from batchchat.sources.jsonl import BOM, JsonLines, split_lines
from batchchat.sources.parquet import ParquetRows
from batchchat.sources.paths import CSV_SUFFIXES, DATA_SUFFIXES, data_suffix
from batchchat.sources.records import Part, Reader

_PARQUET = b"PAR1"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_FOREIGN_SUFFIXES = (".txt", ".md", ".yaml", ".yml", ".xml", ".xlsx", ".arrow", ".zip", ".tar", ".tgz")
"""Files that would otherwise be one bad row per line."""


JSONL = Reader(lambda file, _: JsonLines(file))
JSON = Reader(lambda file, _: _open_json(file))
PARQUET = Reader(lambda file, _: ParquetRows(file, None))

OptionsOf = Callable[[str], Any]
"""The options that a recipe sets for a kind of source; None where it sets none."""


def named_source(path: str) -> tuple[str, str] | None:
    """The kind of source that a path names and what it names of it: `csv:table.txt`, `NAME:ADDRESS`."""
    name, colon, rest = path.partition(":")
    return (name, rest) if colon and name in SOURCES else None


def options_for(name: str, options: OptionsOf) -> Any:
    """The options of a kind of source: the recipe's or their defaults. Raises UsageError where there is no default."""
    model = SOURCES.options(name)
    found = options(name)
    if found is not None or model is None:
        return found
    try:
        return model()
    except ValueError as error:  # pydantic's, for a setting that has to be given
        raise UsageError(f"the source {name} has settings without a default, so set source.{name}: {error}") from None


def open_file(file: DataFile, columns: Sequence[str] | None, options: OptionsOf) -> Part:
    """The reader for a file. Its first bytes decide; its name counts only where they leave it open. Raises UsageError
    for a file that has no rows which could be read."""
    suffix = data_suffix(file.path.name)
    if file.head().startswith(_PARQUET) or file.path.suffix.lower() == ".parquet":
        return ParquetRows(file, columns)
    try:
        return _open_text(file, suffix, options)
    except BrokenStreamError:
        return JsonLines(file)  # which reports where it breaks


def _open_text(file: DataFile, suffix: str, options: OptionsOf) -> Part:
    start = _text_start(file)
    if start.startswith(_UTF_16):
        raise UsageError(f"{file.name} is UTF-16: save it as UTF-8 (iconv -f UTF-16 -t UTF-8)")
    if start.startswith(_PARQUET):
        raise UsageError(f"{file.name} is a compressed Parquet file: decompress it first")
    if start.startswith(b"["):
        lines = suffix in (".jsonl", ".ndjson") and _first_line_is_json(file, and_more_follow=True)
        return JsonLines(file) if lines else JsonArray(file)
    if start.startswith(b"{"):
        if suffix == ".json" and not _first_line_is_json(file):
            raise UsageError(f"{file.name} is neither a JSON list nor one JSON object per line: make it one of these")
    elif suffix in CSV_SUFFIXES:
        return DelimitedRows(file, options_for("csv", options))
    elif start and suffix in _FOREIGN_SUFFIXES:
        others = "".join(f", or name a source of an installed package: {name}:{file.name}" for name in SOURCES.added())
        raise UsageError(
            f"{file.name} is not a kind of file that is read here: make it {', '.join(DATA_SUFFIXES)}, "
            f"or say what it is, for example csv:{file.name}{others}"
        )
    return JsonLines(file)


def _open_json(file: DataFile) -> JsonArray:
    if not _text_start(file).startswith(b"["):
        raise UsageError(f"{file.name} is no JSON list; if it has one JSON object per line, write jsonl:{file.name}")
    return JsonArray(file)


def _text_start(file: DataFile) -> bytes:
    """The text from its first character on that is not white space."""
    for chunk in file.chunks():
        start = chunk.removeprefix(BOM).lstrip()
        if start:
            return start
    return b""


def _first_line_is_json(file: DataFile, and_more_follow: bool = False) -> bool:
    """Whether the first line that is not blank is a JSON value of its own, and perhaps not the only one."""
    lines = (line.removeprefix(BOM) for line in split_lines(file.chunks()) if line and not line.isspace())
    try:
        json.loads(next(lines, b""))
    except (ValueError, RecursionError):
        return False
    return not and_more_follow or next(lines, None) is not None
