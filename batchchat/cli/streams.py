"""Standard output and error that bear what shells do to them: closed, read in part, full, of a narrow encoding."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from batchchat.credentials import without_credentials
from batchchat.errors import EnvironmentFault


@contextmanager
def sturdy_streams() -> Iterator[None]:
    """Within, a reader that goes away (`| head`) ends the printing and not the work, what an encoding cannot hold is
    printed as an escape, and no file of a run takes the number of a closed stream."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest free number
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _sturdy(sys.stdout, 1), _sturdy(sys.stderr, 2)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(EnvironmentFault):  # which was said already, or says nothing of the work
                stream.flush()
        sys.stdout, sys.stderr = before


def _sturdy(stream: TextIO | None, number: int) -> TextIO:
    try:
        if stream is not None and stream.fileno() != number:
            return stream
    except (OSError, ValueError):  # not a file: someone catches what is printed
        assert stream is not None, "a closed stream has no number to ask for"
        return stream
    encoding = "utf-8" if stream is None else stream.encoding
    buffer = io.BufferedWriter(_Descriptor(number))
    kind = io.TextIOWrapper if number == 1 else _Discreet
    return kind(buffer, encoding, "backslashreplace", line_buffering=number == 2 or os.isatty(number))


class _Discreet(io.TextIOWrapper):
    """Libraries, too, say where they connect to, with the password."""

    def write(self, text: str, /) -> int:
        super().write(without_credentials(text))
        return len(text)


class _Descriptor(io.FileIO):
    """A stream by its number. After the first failure it takes everything and writes nothing."""

    def __init__(self, number: int):
        super().__init__(number, "wb", closefd=False)
        self._number = number
        self._failed = False

    def write(self, data: Any, /) -> int:
        if not self._failed:
            try:
                return super().write(data) or 0
            except OSError as error:
                self._failed = True
                if self._number == 1 and not isinstance(error, BrokenPipeError):
                    raise EnvironmentFault(
                        f"standard output cannot be written: {error.strerror}; free some space, or send it elsewhere"
                    ) from error
        return len(data)
