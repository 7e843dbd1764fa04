"""The Arrow type of a column out of the JSON values that were seen in it."""

from __future__ import annotations

from typing import Any

from batchchat.chats.arrow import FREE_FORM
from batchchat.chats.json_text import Numeral

_MOST_FIELDS = 64
"""A struct with more fields than this holds mostly nulls: JSON text says more in less space."""
_MOST_LEVELS = 16
"""Lists and structs within each other beyond which a value is JSON text: few readers bear more."""
_EXACT = 2**53
"""Whole numbers up to this are the same as a double."""


class Shape:
    """What values at one place look like. Add all of them, then ask for the type.

    A struct stands only for objects with the very same keys, since Arrow would give each of them the keys of all;
    everything that no type holds exactly, and every object in a free-form place (`free`), is JSON text.
    """

    def __init__(self, free: bool = False, level: int = 0):
        self._free = free
        self._level = level
        self._kinds: set[str] = set()
        self._low = self._high = 0
        self._items: Shape | None = None
        self._fields: dict[str, Shape] | None = None

    def add(self, value: Any) -> None:
        match value:
            case None:
                pass
            case bool():
                self._kinds.add("bool")
            case int():
                self._kinds.add("int")
                self._low, self._high = min(self._low, value), max(self._high, value)
            case float():
                self._kinds.add("float")
            case Numeral():
                self._kinds.add("float" if value.is_double else "json")
            case str():
                self._kinds.add("text" if _is_text(value) else "json")
            case list():
                self._kinds.add("list")
                self._add_list(value)
            case dict():
                self._kinds.add("object")
                self._add_object(value)

    def type(self) -> Any:
        """The type that holds every value that was added."""
        import pyarrow as pa

        match sorted(self._kinds):
            case []:
                return pa.null()
            case ["bool"]:
                return pa.bool_()
            case ["int"] if self._high < 2**63 and self._low >= -(2**63):
                return pa.int64()
            case ["int"] if self._low == 0 and self._high < 2**64:
                return pa.uint64()
            case ["float"]:
                return pa.float64()
            case ["float", "int"] if self._low >= -_EXACT and self._high <= _EXACT:
                return pa.float64()
            case ["text"]:
                return pa.string()
            case ["list"] if self._items is not None:
                return pa.list_(self._items.type())
            case ["object"] if self._fields:
                return pa.struct([(name, shape.type()) for name, shape in self._fields.items()])
        return pa.json_()

    def _add_list(self, value: list[Any]) -> None:
        if self._kinds != {"list"} or self._level >= _MOST_LEVELS:
            self._kinds.add("json")
            return
        if self._items is None:
            self._items = Shape(self._free, self._level + 1)
        for item in value:
            self._items.add(item)

    def _add_object(self, value: dict[str, Any]) -> None:
        if self._fields is None:
            self._fields = {name: Shape(name in FREE_FORM, self._level + 1) for name in value}
        unlike = value.keys() != self._fields.keys() or not all(map(_is_text, value))
        large = self._level >= _MOST_LEVELS or len(value) > _MOST_FIELDS
        if self._free or unlike or large or self._kinds != {"object"}:
            self._kinds.add("json")
            return
        for name, item in value.items():
            self._fields[name].add(item)


def _is_text(value: str) -> bool:
    """Whether UTF-8 can hold it."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
