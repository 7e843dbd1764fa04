"""JSON schemas whose regular expressions have a time limit: jsonschema itself searches without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import regex

from batchchat.scoring.extras import need


def schema_check(
    schema: Mapping[str, Any],
    seconds: float,
    purpose: str = "the scorer 'json' with json_schema",
    extra: str = "eval",
    *,
    ecmascript: bool = False,
) -> Callable[[Any], Iterator[Any]]:
    """A function from a value to its mistakes by the schema (jsonschema's errors).

    It raises TimeoutError where the patterns of one value take longer than `seconds` together.
    `purpose` and `extra`: for what it is, and what brings the library. `ecmascript`: `\\d` and `\\w` are those
    of ASCII, as in the language that JSON schema takes its patterns from.
    """
    library = need("jsonschema", purpose, extra)
    clock = _Clock(seconds, ecmascript)
    base = library.validators.validator_for(schema, default=library.Draft202012Validator)
    kind = library.validators.extend(
        base,
        {name: check for name, check in _checks(clock, library.ValidationError).items() if name in base.VALIDATORS},
    )
    # An empty registry: a `$ref` to the network is refused, never fetched.
    validator = kind(schema, registry=need("referencing", purpose, extra).Registry())

    def mistakes(value: Any) -> Iterator[Any]:
        clock.start()
        yield from validator.iter_errors(value)

    return mistakes


class _Clock:
    """The time that patterns may still take."""

    def __init__(self, seconds: float, ecmascript: bool):
        self._seconds = seconds
        self._ecmascript = ecmascript
        self._end = 0.0

    def start(self) -> None:
        self._end = time.monotonic() + self._seconds

    def found(self, pattern: str, text: str) -> bool:
        """Whether `pattern` occurs in `text`. Raises TimeoutError."""
        try:
            return (
                _compiled(pattern, self._ecmascript).search(text, timeout=max(self._end - time.monotonic(), 1e-3))
                is not None
            )
        except TimeoutError:
            raise TimeoutError(
                f"the patterns of the schema took longer than {self._seconds} s on this answer"
            ) from None


def _checks(clock: _Clock, error: Any) -> dict[str, Callable[..., Iterator[Any]]]:
    """The keywords of JSON schema that search for patterns."""

    def pattern(validator: Any, wanted: str, instance: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, "string") and not clock.found(wanted, instance):
            yield error(f"{instance!r} does not match {wanted!r}")

    def pattern_properties(validator: Any, patterns: Mapping[str, Any], instance: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(instance, "object"):
            for wanted, subschema in patterns.items():
                for name, value in instance.items():
                    if clock.found(wanted, name):
                        yield from validator.descend(value, subschema, path=name, schema_path=wanted)

    def additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not validator.is_type(instance, "object"):
            return
        patterns = schema.get("patternProperties", {})
        further = [
            name
            for name in instance
            if name not in schema.get("properties", {}) and not any(clock.found(one, name) for one in patterns)
        ]
        if validator.is_type(allowed, "object"):
            for name in further:
                yield from validator.descend(instance[name], allowed, path=name)
        elif not allowed and further:
            yield error(f"unexpected properties: {', '.join(map(repr, further))}")

    return {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
    }


@lru_cache(maxsize=256)
def _compiled(pattern: str, ecmascript: bool) -> regex.Pattern[str]:
    if not ecmascript:
        return regex.compile(pattern)
    ascii_only = _CLASS.sub(lambda found: _CLASSES.get(found[0], found[0]), pattern)
    return regex.compile(ascii_only, regex.VERSION1 if ascii_only != pattern else 0)  # which has sets within sets


_CLASS = regex.compile(r"\\.", regex.DOTALL)
_CLASSES = {r"\d": "[0-9]", r"\D": "[^0-9]", r"\w": "[0-9A-Za-z_]", r"\W": "[^0-9A-Za-z_]"}
