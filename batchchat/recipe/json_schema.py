"""The recipe as a JSON schema, and what can be read from it: every setting, and which values each one allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from batchchat.recipe.schema import Recipe

Node = Mapping[str, Any]
"""A JSON schema, or a part of one."""


@dataclass(frozen=True)
class Setting:
    """One option of the recipe. `path` is dotted; `section` is the path without the last name, "" at the top."""

    path: str
    node: Node
    required: bool

    @property
    def section(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def description(self) -> str:
        return str(self.node["description"])


class WithoutFieldTitles(GenerateJsonSchema):
    """A field's title would only repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def recipe_json_schema() -> dict[str, Any]:
    """The schema that editors check recipes with (draft 2020-12), every setting described."""
    schema = Recipe.model_json_schema(schema_generator=WithoutFieldTitles)
    head = {"$schema": GenerateJsonSchema.schema_dialect, "$id": "recipe.schema.json", "title": "batchchat recipe"}
    return head | {key: value for key, value in schema.items() if key != "title"}


@cache
def _root() -> dict[str, Any]:
    return recipe_json_schema()


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting of every section, in the recipe's order."""
    return tuple(_settings(_root(), ""))


@cache
def sections() -> Mapping[str, str]:
    """The dotted path of every section -> its description; "" is the recipe itself."""
    return dict(_sections(_root(), ""))


@cache
def repeated() -> Mapping[str, Node]:
    """The sections of which a recipe holds any number, with their schemas: one for each scorer, `scoring[].NAME`, and
    those of a judge, `judges.NAME`."""
    entry = next(branch for branch in _branches(_root()["properties"]["scoring"]["items"]) if "properties" in branch)
    scorers = {f"scoring[].{name}": _resolved(node) for name, node in entry["properties"].items()}
    return {**scorers, "judges.NAME": _resolved(_root()["properties"]["judges"]["additionalProperties"])}


def settings_of(section: Node) -> Iterator[Setting]:
    """The settings of one of the `repeated` sections; a section in it that the recipe has, too, is left out."""
    return (
        setting
        for setting in _settings(section, "")
        if not setting.section or setting.section.partition(".")[0] not in sections()
    )


def names_at(path: Sequence[str | int]) -> list[str]:
    """The names that the section at `path` knows; empty where there is no section."""
    node = node_at(path)
    return [name for branch in _branches(node or {}) for name in branch.get("properties", ())]


def node_at(path: Sequence[str | int]) -> Node | None:
    """The schema of a value in the recipe, also inside of lists and mappings; None where no schema describes it."""
    node: Node | None = _root()
    for piece in path:
        node = next((child for branch in _branches(node or {}) for child in _children(branch, piece)), None)
    return None if node is None else _resolved(node)


def kinds(node: Node) -> frozenset[str]:
    """The JSON types that a value may have; empty where any may."""
    found: set[str] = set()
    for branch in _branches(node):
        if "type" in branch:
            found.add(branch["type"])
        else:
            return frozenset()
    return frozenset(found)


def kind_of(value: Any) -> str:
    """The JSON type of a plain value."""
    if value is None:
        return "null"
    for types, kind in _KINDS:
        if isinstance(value, types):
            return kind
    return type(value).__name__


_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    ((list, tuple), "array"),
    (Mapping, "object"),
)


def allowed(node: Node) -> str:
    """The values that a schema allows, in words: `a number from 0 to 1, or null`."""
    return ", or ".join(dict.fromkeys(_words(branch) for branch in _branches(node)))


def choices(node: Node) -> list[str]:
    """The texts among which a value is chosen, if it is."""
    return [value for branch in _branches(node) for value in _enumerated(branch) if isinstance(value, str)]


def _words(branch: Node) -> str:
    if "enum" in branch:
        return f"one of {', '.join(map(str, branch['enum']))}"
    if "const" in branch:
        return str(branch["const"])
    match branch.get("type"):
        case "null":
            return "null"
        case "boolean":
            return "true or false"
        case "integer":
            return "a whole number" + _bounds(branch)
        case "number":
            return "a number" + _bounds(branch)
        case "string" if "pattern" in branch:
            length = f" of at most {branch['maxLength']} characters" if "maxLength" in branch else ""
            return f"text{length} that matches {branch['pattern']}"
        case "string":
            return "text"
        case "array" if "prefixItems" in branch:
            return "a list of " + " and ".join(allowed(item) for item in branch["prefixItems"])
        case "array":
            some = "a list that is not empty" if branch.get("minItems") else "a list"
            return f"{some} (each: {allowed(branch['items'])})"
        case "object" if "properties" in branch:
            return "a section of settings"
        case "object" if isinstance(branch.get("additionalProperties"), Mapping) and branch["additionalProperties"]:
            return f"a mapping (each value: {allowed(branch['additionalProperties'])})"
        case "object":
            return "a mapping"
    return "any JSON value"


def _enumerated(branch: Node) -> list[Any]:
    return [branch["const"]] if "const" in branch else branch.get("enum", [])


def _bounds(branch: Node) -> str:
    low, high = branch.get("minimum"), branch.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    parts = []
    if low is not None:
        parts.append(f"at least {low}")
    if "exclusiveMinimum" in branch:
        parts.append(f"above {branch['exclusiveMinimum']}")
    if high is not None:
        parts.append(f"at most {high}")
    if "exclusiveMaximum" in branch:
        parts.append(f"below {branch['exclusiveMaximum']}")
    return f" ({', '.join(parts)})" if parts else ""


def _resolved(node: Node) -> Node:
    reference = node.get("$ref")
    return _root()["$defs"][reference.rpartition("/")[2]] if reference else node


def _branches(node: Node) -> Iterator[Node]:
    node = _resolved(node)
    if "anyOf" in node:
        for branch in node["anyOf"]:
            yield from _branches(branch)
    else:
        yield node


def _children(branch: Node, piece: str | int) -> Iterator[Node]:
    if branch.get("type") == "array" and isinstance(piece, int):
        items = branch.get("prefixItems", [])
        if piece < len(items):
            yield items[piece]
        elif "items" in branch:
            yield branch["items"]
    elif branch.get("type") == "object":
        if piece in branch.get("properties", {}):
            yield branch["properties"][piece]
        elif isinstance(branch.get("additionalProperties"), Mapping):
            yield branch["additionalProperties"]


def _settings(section: Node, prefix: str) -> Iterator[Setting]:
    for name, node in section["properties"].items():
        inner = _resolved(node)
        if "properties" in inner:
            yield from _settings(inner, f"{prefix}{name}.")
        else:
            yield Setting(f"{prefix}{name}", node, name in section.get("required", ()))


def _sections(section: Node, path: str) -> Iterator[tuple[str, str]]:
    yield path, section["description"]
    for name, node in section["properties"].items():
        inner = _resolved(node)
        if "properties" in inner:
            yield from _sections(inner, f"{path}.{name}" if path else name)
