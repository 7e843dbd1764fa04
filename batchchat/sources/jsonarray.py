"""Files that hold one JSON list of objects, read element by element."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from batchchat.chats import Place, RowError, SourceRow
from batchchat.chats.formats.values import kind
from batchchat.chats.json_text import checked_depth, read_first
from batchchat.errors import BadRow
from batchchat.sources.files import CHUNK, BrokenStreamError, DataFile
from batchchat.sources.records import Item, checked_names, json_reason, raw_text

_SPACE = re.compile(r"[ \t\r\n]*")
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},]', re.DOTALL)
_LONGEST_SKIP = 1 << 24
"""Characters within which the end of an element that is not JSON must be found."""


class JsonArray:
    """Rows of a JSON list, compressed or not. Memory is bounded by the longest element.

    A row's line is the one that it begins on. An element that is not JSON costs itself where its end can be seen by
    its brackets and quotes; where it cannot, one bad row stands for the rest of the file. A comma behind the last
    element is no row.
    """

    def __init__(self, file: DataFile):
        self.name = file.name
        self._file = file

    def rows(self, number: int) -> Iterator[Item]:
        window = _Window(self._file.chunks())
        window.peek()
        window.advance(1)  # the bracket by which the list was known
        while (char := window.peek()) not in ("]", ""):
            place = Place(self.name, window.line)
            value, raw, reason = window.element()
            if reason is None:
                yield SourceRow(number, place, value, raw)
            elif window.peek() == "":
                yield RowError(
                    number, place, window.broken or f"{reason}, and no row behind it can be read", raw_text(raw)
                )
                return
            else:
                yield RowError(number, place, reason, raw_text(raw))
            number += 1
            if window.peek() == ",":
                window.advance(1)
        place = Place(self.name, window.line)
        if char == "":
            reason = window.broken or "the file ends before its list does: make or copy it anew"
            yield RowError(number, place, reason, "")
            return
        window.advance(1)
        if window.peek() != "":
            reason = "something stands behind the end of the list: remove it"
            yield RowError(number, place, reason, raw_text(window.rest()))
        elif window.broken is not None:
            yield RowError(number, place, window.broken, "")

    def fingerprint(self) -> dict[str, Any]:
        return {"path": self.name, "bytes": self._file.path.stat().st_size, "sha256": self._file.sha256()}

    def types(self) -> None:
        return None

    def count(self) -> int | None:
        return None


class _Window:
    """The part of the text that is being read, and the number of the line at its position."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks = chunks
        # Bytes that are no UTF-8 become lone surrogates, so that they cost the element that they stand in and no more.
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text = ""
        self._position = 0
        self.line = 1
        self.broken: str | None = None
        """Why the text ends where it does, if the compressed stream broke there."""
        self._more()
        self._text = self._text.removeprefix("\ufeff")

    def peek(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._position)
            assert match is not None
            self.advance(match.end() - self._position)
            if self._position < len(self._text):
                return self._text[self._position]
            if not self._more():
                return ""

    def advance(self, count: int) -> None:
        """Pass over `count` characters of what was read."""
        self.line += self._text.count("\n", self._position, self._position + count)
        self._position += count

    def rest(self) -> str:
        """What was read but not passed."""
        return self._text[self._position :]

    def element(self) -> tuple[Any, str, str | None]:
        """Passes over the next element. Its value and text, and why it is no row, None where it is one."""
        while True:
            try:
                value, end = read_first(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._may_go_on(error) and self._more():
                    continue
                column = error.pos - self._text.rfind("\n", 0, error.pos)
                line = self.line + self._text.count("\n", self._position, error.pos)
                return None, self._skip(), f"not JSON: {json_reason(error)} at line {line}, column {column}"
            except (ValueError, RecursionError) as error:
                return None, self._skip(), f"not JSON that can be read: {json_reason(error)}"
            if end == len(self._text) and self._more():  # a number may go on
                continue
            text = self._text[self._position : end]
            if not self._ends_element(end):
                return None, self._skip(), "no comma follows this element"
            self.advance(end - self._position)
            if not isinstance(value, dict):
                return None, text, f"the element is {kind(value)}, not an object"
            try:
                text.encode("utf-8")
            except UnicodeEncodeError:
                return None, text, "the element is not UTF-8: save the file as UTF-8"
            try:
                return checked_names(checked_depth(value, text)), text, None
            except (BadRow, ValueError) as error:
                return None, text, str(error)

    def _ends_element(self, end: int) -> bool:
        """Whether a comma, the list's end or the file's end stands at `end`."""
        while True:
            match = _SPACE.match(self._text, end)
            assert match is not None
            if match.end() < len(self._text):
                return self._text[match.end()] in ",]"
            distance = end - self._position
            if not self._more():
                return True
            end = self._position + distance

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Whether the text that was read only ends too early; an escape or word cut in two is at most 12 long."""
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - 12

    def _skip(self) -> str:
        """Passes over an element that is not JSON, up to the comma or bracket that ends it. Its text."""
        while True:
            depth, end = 0, None
            for token in _STRUCTURE.finditer(self._text, self._position):
                sign = token.group()
                if sign == '"':  # a string that does not end here
                    break
                if depth == 0 and sign in ",]":
                    end = token.start()
                    break
                depth += (sign in "[{") - (sign in "]}" and depth > 0)
            too_long = len(self._text) - self._position > _LONGEST_SKIP
            if end is None and not too_long and self._more():
                continue
            if end is None:
                self._chunks = iter(())  # what follows cannot be told apart from this element
                end = len(self._text)
            text = self._text[self._position : end]
            self.advance(end - self._position)
            return text

    def _more(self) -> bool:
        """Reads on, at least as much as is still unread, so that a long element is scanned a few times only."""
        pieces = [self._text[self._position :]]
        self._position = 0
        size, wanted = 0, max(CHUNK, len(pieces[0]))
        try:
            while size < wanted and (chunk := next(self._chunks, None)) is not None:
                pieces.append(self._decode(chunk))
                size += len(chunk)
        except BrokenStreamError as broken:
            self.broken = f"{broken}, and the rows behind it cannot be read: make or copy the file anew"
        if size == 0:
            pieces.append(self._decode(b"", final=True))
        self._text = "".join(pieces)
        return len(self._text) > len(pieces[0])
