"""JSON schemas as they stand: their parts by place, and what a part needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

_OF_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_ONE = ("items", "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else", "propertyNames")

Part = tuple[str, Any]
"""Where a schema stands in the whole one, as a JSON pointer with `#` before it, and the schema."""


def parts(schema: Any, place: str = "#") -> Iterator[Part]:
    """A schema and all schemas in it."""
    left = [(place, schema)]
    while left:
        place, node = left.pop()
        yield place, node
        if isinstance(node, Mapping):
            left += reversed(list(_inside(place, node)))


def _inside(place: str, node: Mapping[str, Any]) -> Iterator[Part]:
    for keyword, value in node.items():
        if keyword in _OF_SCHEMAS and isinstance(value, Mapping):
            yield from ((f"{place}/{keyword}/{_escaped(name)}", inner) for name, inner in value.items())
        elif isinstance(value, list) and keyword in (*_LISTS, "items"):
            yield from ((f"{place}/{keyword}/{number}", inner) for number, inner in enumerate(value))
        elif keyword in _ONE and isinstance(value, Mapping):
            yield f"{place}/{keyword}", value


def endless(schema: Any) -> str | None:
    """The place of a schema whose every value has to hold another one of its kind, so that none is ever whole; None
    where there is no such schema that matters. References within the schema are followed by their pointers."""
    nodes = dict(parts(schema))
    # A schema has finite values where all that it needs has: found from the innermost ones outwards.
    finite: set[str] = set()
    while True:
        found = {place for place in nodes if place not in finite and _is_finite(place, nodes, finite)}
        if not found:
            break
        finite |= found
    if "#" in finite:
        return None
    stuck = [place for place in nodes if place not in finite]
    return next((place for place in stuck if "$ref" in nodes[place]), stuck[0])


def _is_finite(place: str, nodes: Mapping[str, Any], finite: set[str]) -> bool:
    """Whether a schema has finite values, as far as is known of those in it."""
    node = nodes[place]
    if not isinstance(node, Mapping):
        return True
    branches = [
        [f"{place}/{keyword}/{number}" for number in range(_length(node, keyword))] for keyword in ("anyOf", "oneOf")
    ]
    return all(one in finite or one not in nodes for one in _needed(place, node)) and all(
        any(one in finite for one in alternatives) for alternatives in branches if alternatives
    )


def _needed(place: str, node: Mapping[str, Any]) -> Iterator[str]:
    """Places of the schemas of which every value of this one holds a value."""
    yield from (f"{place}/allOf/{number}" for number in range(_length(node, "allOf")))
    if isinstance(node.get("$ref"), str):
        yield unquote(node["$ref"]).rstrip("/")
    required, properties, least = node.get("required"), node.get("properties"), node.get("minItems")
    if _only_type(node) == "object" and isinstance(required, list) and isinstance(properties, Mapping):
        yield from (f"{place}/properties/{_escaped(name)}" for name in required if name in properties)
    if _only_type(node) == "array" and isinstance(least, int):
        prefix = _length(node, "prefixItems")
        yield from (f"{place}/prefixItems/{number}" for number in range(min(prefix, least)))
        if least > prefix:
            yield f"{place}/items"


def _only_type(node: Mapping[str, Any]) -> Any:
    """The type that all values of a schema have; None where it allows several."""
    kind = node.get("type")
    return kind[0] if isinstance(kind, list) and len(kind) == 1 else kind


def _length(node: Mapping[str, Any], keyword: str) -> int:
    value = node.get(keyword)
    return len(value) if isinstance(value, list) else 0


def _escaped(name: Any) -> str:
    return str(name).replace("~", "~0").replace("/", "~1")
