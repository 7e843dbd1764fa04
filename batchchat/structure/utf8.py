"""Tokens that go on with a text so that it is UTF-8, which may end within a character until more comes."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from functools import cache
from typing import Any

_NARROW = b"\xe0\xed\xf0\xf4"
"""Behind these not every continuation byte may follow."""
_LIKE = {1: b"\xc3", 2: b"\xe1", 3: b"\xf1"}
"""Bytes behind which so many continuation bytes are wanted, whichever."""


class Utf8Tokens:
    """Of the tokens that have these bytes. `begun` is what a text ends in of a character that is not whole."""

    def __init__(self, pieces: Sequence[bytes]):
        self._pieces = pieces
        self._masks = cache(self._mask)

    def allowed(self, begun: bytes) -> Any:
        """A numpy array [words] int32, bit n for token n. A token without bytes is none of them."""
        return self._masks(begun if not begun or begun in _NARROW else _LIKE[_length(begun[0]) - len(begun)])

    def after(self, begun: bytes, token: int) -> bytes | None:
        """What is begun behind this token; None where the text is not UTF-8 with it."""
        return _rest(begun + self._pieces[token])

    def _mask(self, begun: bytes) -> Any:
        import numpy

        fits = [
            bool(piece) and ((not begun and piece.isascii()) or _rest(begun + piece) is not None)
            for piece in self._pieces
        ]
        bits = numpy.zeros(-(-len(fits) // 32) * 32, numpy.uint8)
        bits[: len(fits)] = fits
        return numpy.packbits(bits, bitorder="little").view(numpy.int32)


def _rest(text: bytes) -> bytes | None:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(text)
    except UnicodeDecodeError:
        return None
    rest = decoder.getstate()[0]
    return rest if rest[:1] != b"\xed" or rest[1:2] < b"\xa0" else None  # of half a surrogate pair it waits for the end


def _length(first: int) -> int:
    return 2 if first < 0xE0 else 3 if first < 0xF0 else 4
