"""JSON schemas as xgrammar is given them: it passes over what it does not know, and over much of what stands beside
something else. So a schema is written anew, in the keywords that it keeps, one at a time; others are refused.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from batchchat.structure.schemas import parts
from batchchat.structure.xgrammar_patterns import NotRead, in_string, of_length

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_DECIMALS = 6
"""Of a number between bounds, as the library writes it."""
_OF_TYPES: Mapping[str, Sequence[str]] = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties", "patternProperties",
               "propertyNames", "dependencies", "dependentRequired", "dependentSchemas", "unevaluatedProperties"),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems", "contains",
              "minContains", "maxContains", "unevaluatedItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": (*_BOUNDS, "multipleOf"),
    "integer": (*_BOUNDS, "multipleOf"),
    "boolean": (),
    "null": (),
}  # fmt: skip
_NEVER = ("not", "if", "$dynamicRef", "$recursiveRef")
_OTHERS = ("$ref", "anyOf", "oneOf", "allOf")
_ASSERTIONS = {"type", "enum", "const", *_NEVER, *_OTHERS, *(name for names in _OF_TYPES.values() for name in names)}
"""Whatever else a schema holds are remarks."""
_FORMATS = ("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri")
"""Of those that the library knows, which are written without a sign that a JSON string escapes."""

Node = Any
"""A schema within a schema: an object, true or false."""


class NotKept(ValueError):
    """`str` is what of a schema is not kept, in a phrase."""


def rewritten(schema: Node) -> Node:
    """A schema whose every value is one of `schema`, and of which nothing is passed over. Raises NotKept.

    An object takes no properties but those that are listed, where some are and the schema does not say what others are:
    the library knows the name of a property in one of its spellings only. Raises RecursionError for one too deep.
    """
    return _Rewriting(schema).whole()


class _Rewriting:
    def __init__(self, schema: Node):
        self._root = schema
        self._nodes = dict(parts(schema))
        self._names: dict[str, str] = {}
        """Of the places that are referred to."""
        self._by_type: Mapping[str, Callable[[Mapping[str, Any], str], Node]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "number": self._number,
            "integer": self._integer,
        }
        if isinstance(schema, Mapping) and "draft-03" in str(schema.get("$schema")):
            raise NotKept("the keyword $schema of draft 3")

    def whole(self) -> Node:
        found = self._node(self._root, "#")
        definitions: dict[str, Node] = {}
        while left := [place for place, name in self._names.items() if name not in definitions]:
            for place in left:
                definitions[self._names[place]] = self._node(self._nodes[place], place)
        return {**found, "$defs": definitions} if definitions else found

    def _node(self, node: Node, place: str) -> Node:
        if node is False:
            raise NotKept(f"a part at {place} that nothing is allowed for")
        if node is True:
            return {}
        said = {name: value for name, value in node.items() if name in _ASSERTIONS}
        if "$id" in node and place != "#":
            raise NotKept(f"the keyword $id at {place}")
        for keyword in _NEVER:
            if keyword in said:
                raise NotKept(f"the keyword {keyword} at {place}")
        if "enum" in said or "const" in said:
            return self._values(said, place)
        for keyword in _OTHERS:
            if keyword in said:
                return self._other(keyword, said, place)
        return self._typed(said, place)

    def _other(self, keyword: str, said: Mapping[str, Any], place: str) -> Node:
        """A node that says no more than another one, or several."""
        _nothing_else(said, (keyword,), place)
        value = said[keyword]
        if keyword == "$ref":
            return {"$ref": f"#/$defs/{self._referred(value, place)}"}
        ways = [self._node(one, f"{place}/{keyword}/{number}") for number, one in enumerate(value)]
        if keyword == "allOf" and len(ways) > 1:
            raise NotKept(f"the keyword allOf with several parts at {place}")
        if keyword == "oneOf" and not _are_apart(ways):
            raise NotKept(f"the keyword oneOf with parts that may have values in common at {place}")
        return ways[0] if len(ways) == 1 else {"anyOf": ways}

    def _referred(self, reference: str, place: str) -> str:
        target = unquote(reference).rstrip("/")
        if target not in self._nodes:
            raise NotKept(f"a reference to {reference[:100]}, which is none of its parts, at {place}")
        return self._names.setdefault(target, f"part{len(self._names)}")

    def _values(self, said: Mapping[str, Any], place: str) -> Node:
        keyword = "enum" if "enum" in said else "const"
        _nothing_else(said, (keyword, "type"), place)
        values = said["enum"] if keyword == "enum" else [said["const"]]
        kinds = _types(said)
        if kinds is not None:
            values = [value for value in values if any(_is(value, kind) for kind in kinds)]
        if not values:
            raise NotKept(f"a part at {place} that no value is allowed for")
        return {"enum": values}

    def _typed(self, said: Mapping[str, Any], place: str) -> Node:
        """A node for each type that it allows."""
        kinds = _types(said)
        if kinds is None:
            if not said:
                return {}
            kinds = [kind for kind in _OF_TYPES if kind != "integer"]
        ways = []
        for kind in kinds:
            own = {name: value for name, value in said.items() if name in _OF_TYPES[kind]}
            ways.append({"type": kind, **(self._by_type[kind](own, place) if own else {})})
        return ways[0] if len(ways) == 1 else {"anyOf": ways}

    def _object(self, said: Mapping[str, Any], place: str) -> Node:
        _nothing_else(said, _OF_TYPES["object"][:5], place)
        required = said.get("required", [])
        others = said.get("additionalProperties")
        listed = {**said.get("properties", {}), **dict.fromkeys(required, others), **said.get("properties", {})}
        listed = {name: True if node is None else node for name, node in listed.items()}
        if listed and others not in (None, False):
            raise NotKept(f"the keyword additionalProperties beside properties at {place}")
        if not listed and others is not False and said.get("minProperties", 0) > 1:
            raise NotKept(f"the keyword minProperties without properties at {place}")
        fields = {
            name: self._node(node, f"{place}/properties/{_escaped(name)}")
            for name, node in listed.items()
            if node is not False or name in required
        }
        found = {"required": required, **_counts(said, "minProperties", "maxProperties")}
        if fields:
            found["properties"] = fields
        if listed or others is False:
            found["additionalProperties"] = False
        elif others is not None:
            found["additionalProperties"] = self._node(others, f"{place}/additionalProperties")
        return found

    def _array(self, said: Mapping[str, Any], place: str) -> Node:
        if said.get("uniqueItems") is False:
            said = {name: value for name, value in said.items() if name != "uniqueItems"}
        _nothing_else(said, ("items", "prefixItems", "minItems", "maxItems"), place)
        if isinstance(said.get("items"), list):
            raise NotKept(f"the keyword items with a list at {place}")
        found: dict[str, Any] = _counts(said, "minItems", "maxItems")
        if "items" in said:
            items = said["items"]
            found["items"] = False if items is False else self._node(items, f"{place}/items")
        if "prefixItems" in said:
            places = enumerate(said["prefixItems"])
            found["prefixItems"] = [self._node(one, f"{place}/prefixItems/{number}") for number, one in places]
        return found

    def _string(self, said: Mapping[str, Any], place: str) -> Node:
        for keyword in ("pattern", "format"):
            if keyword in said:
                _nothing_else(said, (keyword,), place)
        if "format" in said:
            if said["format"] not in _FORMATS:
                raise NotKept(f"the format {said['format']} at {place}")
            return {"format": said["format"]}
        if "pattern" not in said:
            counts = _counts(said, "minLength", "maxLength")
            return {"pattern": of_length(counts.get("minLength", 0), counts.get("maxLength"))}
        try:
            return {"pattern": in_string(said["pattern"])}
        except NotRead as part:
            raise NotKept(f"the pattern {said['pattern'][:100]!r}, in which {part} is not read, at {place}") from part

    def _number(self, said: Mapping[str, Any], place: str) -> Node:
        _nothing_else(said, _BOUNDS, place)
        for keyword, bound in said.items():
            if isinstance(bound, bool) or round(bound, _DECIMALS) != bound:
                raise NotKept(f"the keyword {keyword} {bound} at {place}")
        return dict(said)

    def _integer(self, said: Mapping[str, Any], place: str) -> Node:
        if "multipleOf" in said:
            _nothing_else(said, ("multipleOf",), place)
            if said["multipleOf"] != int(said["multipleOf"]):
                raise NotKept(f"the keyword multipleOf {said['multipleOf']} of an integer at {place}")
            return {"multipleOf": int(said["multipleOf"])}
        _nothing_else(said, _BOUNDS, place)
        bounds = {name: bound for name, bound in said.items() if not isinstance(bound, bool)}
        if len(bounds) < len(said):
            raise NotKept(f"a bound that is no number at {place}")
        least = [math.ceil(bounds["minimum"])] if "minimum" in bounds else []
        least += [math.floor(bounds["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in bounds else []
        most = [math.floor(bounds["maximum"])] if "maximum" in bounds else []
        most += [math.ceil(bounds["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in bounds else []
        return {
            **({"minimum": max(least)} if least else {}),
            **({"maximum": min(most)} if most else {}),
        }


def _nothing_else(said: Mapping[str, Any], allowed: Iterable[str], place: str) -> None:
    """Raises NotKept for a keyword besides those that are allowed together."""
    allowed = set(allowed)
    if (further := next((name for name in said if name not in allowed), None)) is not None:
        first = next((name for name in said if name in allowed), None)
        raise NotKept(f"the keyword {further}{'' if first is None else f' beside {first}'} at {place}")


def _counts(said: Mapping[str, Any], *names: str) -> dict[str, int]:
    """Whole numbers, which a schema may write as 2.0."""
    return {name: int(said[name]) for name in names if name in said}


def _types(said: Mapping[str, Any]) -> Sequence[str] | None:
    kind = said.get("type")
    kinds = [kind] if isinstance(kind, str) else kind
    return kinds if kinds is None or "number" not in kinds else [one for one in kinds if one != "integer"]


def _is(value: Any, kind: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "number": number,
        "integer": number and float(value).is_integer(),
        "boolean": isinstance(value, bool),
        "null": value is None,
    }[kind]


def _are_apart(ways: Sequence[Node]) -> bool:
    """Whether no two of some rewritten nodes have a value in common, as far as their types and lists of values say."""
    taken: set[str] = set()
    for way in ways:
        kinds = _kinds(way)
        if kinds is None or taken & kinds:
            return False
        taken |= kinds
    return "string" not in taken or not any(kind.startswith('"') for kind in taken)


def _kinds(node: Node) -> set[str] | None:
    """What tells a node's values from others': their type, or the values themselves; None where that is not known."""
    if "enum" in node:
        simple = all(isinstance(value, str) for value in node["enum"])
        return {json.dumps(value) for value in node["enum"]} if simple else None
    if "anyOf" in node:
        inner = [_kinds(way) for way in node["anyOf"]]
        return None if None in inner else {kind for kinds in inner for kind in kinds or ()}
    kind = node.get("type")
    return None if kind is None else {"number" if kind == "integer" else kind}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
