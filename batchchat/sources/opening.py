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
_ENCRYPTED_PARQUET = b"PARE"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_UTF_32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_BEGINNINGS = b'{[" \t\r\n'
"""Signs that rows of JSON may begin with."""
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
    if file.head().startswith(_ENCRYPTED_PARQUET):
        raise UsageError(f"{file.name} is an encrypted Parquet file: decrypt it first")
    try:
        return _open_text(file, suffix, options)
    except BrokenStreamError:
        return JsonLines(file)  # which reports where it breaks


def _open_text(file: DataFile, suffix: str, options: OptionsOf) -> Part:
    start = _text_start(file)
    encoding = _wide_encoding(next(iter(file.chunks()), b""))
    if encoding is not None:
        raise UsageError(f"{file.name} is {encoding}: save it as UTF-8 (iconv -f {encoding} -t UTF-8)")
    if _ends_lines_with_cr(file):
        raise UsageError(
            f"{file.name} ends its lines with carriage returns alone: end them with newlines (tr '\\r' '\\n')"
        )
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


def _wide_encoding(head: bytes) -> str | None:
    """The name of an encoding with several bytes for each sign, by its mark or by the zero bytes of the first sign."""
    if head.startswith(_UTF_32):
        return "UTF-32"
    if head.startswith(_UTF_16):
        return "UTF-16"
    widths = {"UTF-32LE": (4, 0), "UTF-32BE": (4, 3), "UTF-16LE": (2, 0), "UTF-16BE": (2, 1)}
    for name, (width, place) in widths.items():
        sign = head[:width]
        if len(sign) == width and sign[place] in _BEGINNINGS and sign.count(0) == width - 1:
            return name
    return None


def _ends_lines_with_cr(file: DataFile) -> bool:
    """Whether carriage returns alone part the first rows: two values one behind the other are no JSON text."""
    head = next(iter(file.chunks()), b"").removeprefix(BOM)
    pieces = [piece for piece in head.split(b"\r") if piece.strip()]
    return b"\n" not in head and len(pieces) > 1 and all(map(_is_json, pieces[:2]))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


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
    if not _is_json(next(lines, b"")):
        return False
    return not and_more_follow or next(lines, None) is not None
