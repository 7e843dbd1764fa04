"""Checks on single values of a row, and the words for what was found instead."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from batchchat.chats.json_text import Numeral, raw_json, read_row
from batchchat.errors import BadRow


def kind(value: Any) -> str:
    """What a JSON value is, in words for a message."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float() | Numeral():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
    return f"a {type(value).__name__}"


def as_json(value: Any) -> str:
    """`value` as JSON text with its characters as they are, lone surrogates included, and the digits of its numbers."""
    return raw_json(value)


def check_text(value: Any, where: str) -> str:
    """`value` if it is a string that UTF-8 can hold; raises BadRow otherwise.

    A lone surrogate (half of a UTF-16 pair, as in "\\ud83d") is no character: no tokenizer can take it.
    """
    if not isinstance(value, str):
        raise BadRow(f"{where} is {kind(value)}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise BadRow(
            f"{where} holds the lone surrogate U+{ord(value[error.start]):04X} at character {error.start + 1}, "
            "which is no text: repair the emoji that was cut in two"
        ) from None
    return value


def optional_text(entry: Mapping[str, Any], key: str, where: str) -> str | None:
    """The text of a key that may be absent or null."""
    return None if entry.get(key) is None else check_text(entry[key], f"{where}.{key}")


def further_keys(entry: Mapping[str, Any], own: Set[str]) -> Mapping[str, Any]:
    """The keys of a turn that the format does not know; null is as good as absent, since Arrow gives
    every turn every key."""
    if entry.keys() <= own:
        return {}
    return {key: value for key, value in entry.items() if key not in own and value is not None}


def check_encodable(value: Any, where: str) -> None:
    """Raises BadRow where a text anywhere in a JSON value holds a lone surrogate."""
    check_text(as_json(value), where)


def parse_json(text: str, where: str) -> Any:
    """The value of a JSON text inside a row; raises BadRow."""
    try:
        return read_row(text)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{where} is not JSON ({error})") from None
