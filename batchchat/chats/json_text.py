"""JSON in and out: strict, with every digit of a number.

Rows are read twice where it matters: `read_row` gives plain Python values to work with, `read_exact` the same values
with a `Numeral` wherever Python would write a number with other digits (1.10, 1e400, -0), to be written again.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

MAX_DEPTH = 256
"""Lists and objects within each other that a row may hold: what everything that walks through rows can bear."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_LITERALS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number by its digits."""

    text: str

    @property
    def is_double(self) -> bool:
        """Whether a double has the same value."""
        value = float(self.text)
        return math.isfinite(value) and Decimal(repr(value)) == Decimal(self.text)

    def __float__(self) -> float:
        return float(self.text)


class NotStrictError(ValueError):
    """JSON that some readers take and others do not, or read otherwise; says why."""


def read_row(text: str) -> Any:
    """The value of a JSON text. Raises ValueError where it is not JSON, NotStrictError for NaN and Infinity, a key that
    stands twice in one object, or more than `MAX_DEPTH` levels."""
    return checked_depth(_strict.decode(text), text)


def read_first(text: str, start: int) -> tuple[Any, int]:
    """The value of the JSON that begins at `start`, at any depth, and where it ends. Raises as `read_row`."""
    return _strict.raw_decode(text, start)


def read_exact(text: str) -> Any:
    """As `read_row`, of a text that was read before, with every number's digits kept."""
    return _exact.decode(text)


def checked_depth(value: Any, text: str) -> Any:
    """`value`, which was read from `text`; raises NotStrictError where it is too deep."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return value
    level, depth = [value], 0
    while level := [box for box in level if isinstance(box, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise NotStrictError(f"nested too deeply (more than {MAX_DEPTH} levels)")
        level = [item for box in level for item in (box.values() if isinstance(box, dict) else box)]
    return value


def json_text(value: Any) -> str:
    """`value` as one line of JSON that any reader takes and that UTF-8 can hold: numerals with their digits, NaN and
    infinities as the texts "NaN", "Infinity" and "-Infinity", lone surrogates escaped."""
    return encodable(raw_json(value))


def raw_json(value: Any) -> str:
    """As `json_text`, but lone surrogates stay as they are, so that they can be found."""
    try:
        return _encode(value)
    except ValueError:  # NaN, infinity or a numeral, which the quick encoder refuses
        return "".join(_pieces(value, '"%s"'))


def loose_text(value: Any) -> str:
    """`value` as JSON text for our own reading: NaN and infinities as Python writes and reads them."""
    try:
        return encodable(_loose(value))
    except NotStrictError:
        return encodable("".join(_pieces(value, "%s")))


def encodable(text: str) -> str:
    """A text with its lone surrogates, which UTF-8 cannot hold, as escapes (in JSON text these mean the same)."""
    return text if text.isascii() else _SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NotStrictError(f"the key {encodable(twice)!r} stands twice in one object")
    return found


def _constant(name: str) -> Any:
    raise NotStrictError(f"{name} is no JSON value: write null")


def _float(text: str) -> float | Numeral:
    value = float(text)
    return value if repr(value) == text else Numeral(text)


def _int(text: str) -> int | Numeral:
    return Numeral(text) if text == "-0" else int(text)


def _refuse(value: Any) -> Any:
    if isinstance(value, Numeral):
        raise NotStrictError("a numeral")
    raise TypeError(f"a {type(value).__name__} has no place in JSON")


def _pieces(value: Any, literal: str) -> Iterator[str]:
    """The pieces of a value that the quick encoder refuses; `literal` is how NaN and infinities stand in it."""
    match value:
        case Numeral():
            yield value.text
        case float():
            text = repr(value)
            yield literal % _LITERALS[text] if text in _LITERALS else text
        case dict():
            yield "{"
            for number, (name, item) in enumerate(value.items()):
                yield f"{', ' if number else ''}{_encode(str(name))}: "
                yield from _pieces(item, literal)
            yield "}"
        case list() | tuple():
            yield "["
            for number, item in enumerate(value):
                yield ", " if number else ""
                yield from _pieces(item, literal)
            yield "]"
        case _:
            yield _encode(value)


_strict = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
_exact = json.JSONDecoder(parse_float=_float, parse_int=_int)
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=_refuse).encode
_loose = json.JSONEncoder(ensure_ascii=False, default=_refuse).encode
