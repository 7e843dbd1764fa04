"""Files with one JSON object on each line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from batchchat.chats import Place, RowError, SourceRow
from batchchat.chats.formats.values import kind
from batchchat.chats.json_text import read_row
from batchchat.errors import BadRow
from batchchat.sources.files import COMPRESSIONS, BrokenStreamError, DataFile
from batchchat.sources.records import Item, checked_names, json_reason, raw_text

BOM = b"\xef\xbb\xbf"


class JsonLines:
    """Rows of a JSONL file, compressed or not. Memory is bounded by the longest line.

    A line ends at "\\n" and nowhere else; a "\\r" before it and a byte order mark at the start of the file are
    dropped, blank lines are counted and passed over.
    """

    def __init__(self, file: DataFile):
        self.name = file.name
        self._file = file
        self._count: int | None = None

    def rows(self, number: int) -> Iterator[Item]:
        line_number = 0
        try:
            for line in split_lines(self._file.chunks()):
                line_number += 1
                if line_number == 1:
                    line = line.removeprefix(BOM)
                if not line or line.isspace():
                    continue
                place = Place(self.name, line_number)
                try:
                    yield SourceRow(number, place, *parse_line(line))
                except BadRow as error:
                    yield RowError(number, place, str(error), raw_text(line))
                number += 1
        except BrokenStreamError as broken:
            reason = f"{broken}, and the rows behind it cannot be read: make or copy the file anew"
            yield RowError(number, Place(self.name, line_number + 1), reason, raw_text(broken.rest))

    def fingerprint(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        count = size = 0
        with self._file.path.open("rb") as file:
            compressed = file.peek(8).startswith(tuple(COMPRESSIONS))
            for line in file:
                digest.update(line)
                text = line.removeprefix(BOM) if size == 0 else line
                count += not (text.isspace() or not text)
                size += len(line)
        self._count = None if compressed else count
        return {"path": self.name, "bytes": size, "sha256": digest.hexdigest()}

    def types(self) -> None:
        return None

    def count(self) -> int | None:
        """Known for an uncompressed file once its fingerprint was taken, which reads every line anyway."""
        return self._count


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream without their ends. A stream that breaks gives its last, unfinished line in the error."""
    rest: list[bytes] = []
    try:
        for chunk in chunks:
            first, *more = chunk.split(b"\n")
            rest.append(first)
            if more:
                yield b"".join(rest)
                rest = [more.pop()]
                yield from more
    except BrokenStreamError as broken:
        raise BrokenStreamError(str(broken), b"".join(rest)) from None
    last = b"".join(rest)
    if last:
        yield last


def parse_line(line: bytes) -> tuple[dict[str, Any], str]:
    """The JSON object of one line (a "\\r" at its end is white space) and its text. Raises BadRow with the column, from
    1."""
    try:
        text = line.decode("utf-8")
        value = read_row(text)
    except UnicodeDecodeError as error:
        raise BadRow(
            f"the line is not UTF-8: byte 0x{line[error.start]:02x} at byte {error.start + 1}: save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise BadRow(f"the line is not JSON: {json_reason(error)} at column {error.pos + 1}") from None
    except (ValueError, RecursionError) as error:
        raise BadRow(f"the line is not JSON that can be read: {json_reason(error)}") from None
    if not isinstance(value, dict):
        raise BadRow(f"the line is {kind(value)}, not an object")
    return checked_names(value), text
