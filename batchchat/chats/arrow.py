"""Values of Arrow columns as JSON holds them, and back: by a column's type each of its values has one form.

    Arrow                        JSON
    decimal                      its digits as a text
    binary                       base64
    date, time, timestamp        ISO 8601
    duration                     seconds (a text where a float has too few digits)
    map                          an object, its keys as texts
    arrow.json                   the value itself (a `Numeral` where a number's digits would change)
    uuid                         its usual text

NaN and infinities stay floats (`json_text` writes them as texts). In free-form objects (`FREE_FORM`) a struct's null
fields are left out: Arrow gives every value of a struct all keys of all of them.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from batchchat.chats.json_text import Numeral, json_text, read_exact, read_row

FREE_FORM = frozenset({"tools", "functions", "arguments", "parameters", "metadata"})
"""Names of columns and keys whose objects have keys of their own in each row."""

JSON_COLUMN = {b"batchchat": b"json"}
"""Field metadata that marks a text column as JSON, for readers that do not know `arrow.json`."""

Convert = Callable[[Any], Any]

_UNITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def as_is(value: Any) -> Any:
    return value


def to_json(kind: Any, free: bool = False) -> Convert:
    """What makes JSON values out of the Python ones that Arrow gives for a type; `as_is` where these are the same.

    Raises TypeError for a type that rows cannot hold. What is returned raises ValueError for a value that is not what
    its type says.
    """
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.JsonType):
        return _every(_read_json)
    if isinstance(kind, pa.UuidType) or types.is_decimal(kind):
        return _every(str)
    if isinstance(kind, pa.BaseExtensionType):
        return to_json(kind.storage_type, free)
    if types.is_struct(kind):
        return _object_to_json(kind, free)
    if _is_list(kind):
        inner = to_json(kind.value_type, free)
        return as_is if inner is as_is else _every(lambda items: [inner(item) for item in items])
    if types.is_map(kind):
        return _map_to_json(kind, free)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return to_json(kind.value_type, free)
    if _is_binary(kind):
        return _every(lambda value: base64.b64encode(value).decode("ascii"))
    if types.is_date(kind) or types.is_time(kind) or types.is_timestamp(kind):
        return _every(lambda value: value.isoformat())
    if types.is_duration(kind):
        return _every(lambda value: _seconds(value, kind.unit))
    if types.is_float16(kind):
        return _every(float)
    if _is_plain(kind):
        return as_is
    raise TypeError(f"Arrow's type {kind} has no place in a row")


def from_json(kind: Any) -> Convert:
    """The inverse of `to_json`: Python values that Arrow takes for a type's storage. What is returned raises
    ValueError, TypeError or KeyError for a value that does not fit the type."""
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.JsonType):
        return _every(json_text)
    if isinstance(kind, pa.UuidType):
        return _every(lambda text: UUID(text).bytes)
    if isinstance(kind, pa.BaseExtensionType):
        return from_json(kind.storage_type)
    if types.is_struct(kind):
        return _object_from_json(kind)
    if _is_list(kind):
        inner = from_json(kind.value_type)
        return _every(lambda items: [inner(item) for item in _expect(items, list)])
    if types.is_map(kind):
        read_key, read_item = _key_from_text(kind.key_type), from_json(kind.item_type)
        return _every(lambda map_: [(read_key(key), read_item(item)) for key, item in _expect(map_, dict).items()])
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return from_json(kind.value_type)
    if types.is_decimal(kind):
        return _every(Decimal)
    if _is_binary(kind):
        return _every(lambda text: base64.b64decode(text, validate=True))
    if types.is_date(kind):
        return _every(date.fromisoformat)
    if types.is_time(kind):
        return _every(time.fromisoformat)
    if types.is_timestamp(kind):
        return _every(_timestamp if kind.unit == "ns" else datetime.fromisoformat)
    if types.is_duration(kind):
        return _every(lambda value: int((Decimal(str(value)).scaleb(_UNITS[kind.unit])).to_integral_value()))
    if types.is_floating(kind):
        return _every(lambda value: float(_expect(value, (int, float, Numeral))))
    wanted = str if _is_text(kind) else bool if types.is_boolean(kind) else (int, Numeral)
    return _every(lambda value: value if type(_expect(value, wanted)) is not Numeral else int(value.text))


def build_array(values: Sequence[Any], kind: Any, convert: Convert) -> Any:
    """The Arrow array of a type from JSON values; `convert` is `from_json(kind)`. Raises ValueError (ArrowInvalid is
    one), TypeError, KeyError or OverflowError where a value does not fit."""
    import pyarrow as pa

    array = pa.array([convert(value) for value in values], type=storage(kind))
    return array if array.type == kind else array.cast(kind)


def storage(kind: Any) -> Any:
    """A type with the types that extensions in it are stored as."""
    import pyarrow as pa

    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return storage(kind.storage_type)
    if types.is_struct(kind):
        return pa.struct([field.with_type(storage(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(
            kind.key_field.with_type(storage(kind.key_type)), kind.item_field.with_type(storage(kind.item_type))
        )
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(storage(kind.value_type)), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(storage(kind.value_type)))
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(storage(kind.value_type)))
    return kind


def _read_json(text: str) -> Any:
    """The value of a JSON cell, its numbers' digits kept."""
    read_row(text)
    return read_exact(text)


def _every(convert: Convert) -> Convert:
    """Null stays null."""
    return lambda value: None if value is None else convert(value)


def _object_to_json(kind: Any, free: bool) -> Convert:
    fields = {field.name: to_json(field.type, free or field.name in FREE_FORM) for field in kind}
    if not free and all(convert is as_is for convert in fields.values()):
        return as_is
    pairs = list(fields.items())
    if free:
        return _every(lambda value: {name: convert(value[name]) for name, convert in pairs if value[name] is not None})
    return _every(lambda value: {name: convert(value[name]) for name, convert in pairs})


def _object_from_json(kind: Any) -> Convert:
    fields = {field.name: from_json(field.type) for field in kind}

    def convert(value: Any) -> Any:
        return {name: fields[name](item) for name, item in _expect(value, dict).items()}

    return _every(convert)


def _map_to_json(kind: Any, free: bool) -> Convert:
    key_to_json, item_to_json = to_json(kind.key_type), to_json(kind.item_type, free)

    def convert(pairs: Any) -> Any:
        found = {}
        for key, item in pairs:
            name = key_to_json(key)
            name = name if isinstance(name, str) else json_text(name)
            if name in found:
                raise ValueError(f"a map has the key {name!r} twice")
            found[name] = item_to_json(item)
        return found

    return _every(convert)


def _key_from_text(kind: Any) -> Convert:
    import pyarrow as pa

    convert = from_json(kind)
    if _is_text(kind) or pa.types.is_decimal(kind) or _is_binary(kind) or pa.types.is_temporal(kind):
        return convert
    return lambda text: convert(read_row(text))


def _expect(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"a {type(value).__name__} does not fit the column's type")
    return value


def _seconds(value: timedelta, unit: str) -> float | str:
    nanoseconds = getattr(value, "value", None)  # of a pandas Timedelta, which Arrow gives for nanoseconds
    exact = (
        Decimal(nanoseconds).scaleb(-9)
        if nanoseconds is not None
        else Decimal(value.days) * 86400 + value.seconds + Decimal(value.microseconds).scaleb(-6)
    )
    seconds = float(exact)
    return seconds if Decimal(repr(seconds)) == exact else format(exact, "f")


def _timestamp(text: str) -> Any:
    import pandas  # type: ignore[import-untyped]

    return pandas.Timestamp(text)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    tests = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(test(kind) for test in tests)


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    return any(test(kind) for test in tests)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _is_plain(kind: Any) -> bool:
    """Whether values of a type without others in it are JSON values already."""
    import pyarrow as pa

    types = pa.types
    return _is_text(kind) or any(
        test(kind) for test in (types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    )
