"""The recipe as a JSON schema, and what can be read from it: every setting, and which values each one allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from batchchat.errors import EnvironmentFault
from batchchat.recipe.engine import EngineSection
from batchchat.recipe.evaluation import ScorerEntry
from batchchat.recipe.open_section import OpenSection, option_models
from batchchat.recipe.schema import Recipe
from batchchat.recipe.sink import SinkSection
from batchchat.recipe.source import SourceSection

Node = Mapping[str, Any]
"""A JSON schema, or a part of one."""

OPEN_SECTIONS: tuple[type[OpenSection], ...] = (EngineSection, SourceSection, SinkSection, ScorerEntry)

_OPEN = {section.__name__: section for section in OPEN_SECTIONS}
"""By the title of their schema."""


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

    @property
    def suggestions(self) -> list[str]:
        """Values that it may have, as they are written in an override: all of them where they are few, else its default
        and examples."""
        values = choices(self.node)
        if not values and "boolean" in kinds(self.node):
            values = ["true", "false"]
        if not values:
            given = [self.node.get("default"), *self.node.get("examples", ())]
            values = [str(value) for value in given if isinstance(value, str | int | float)]
        return [value for value in dict.fromkeys(values) if value and value.isprintable() and " " not in value]


class WithoutFieldTitles(GenerateJsonSchema):
    """A field's title would only repeat its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def recipe_json_schema(*, added: bool = True) -> dict[str, Any]:
    """The schema that editors check recipes with (draft 2020-12), every setting described.

    The options of what packages add are in it where they are `added`; what cannot be used of it is left out.
    """
    options = {section: _options(section, added) for section in OPEN_SECTIONS}
    models: list[type[BaseModel]] = [
        Recipe,
        *dict.fromkeys(model for found in options.values() for model in found.values()),
    ]
    places, schema = models_json_schema(
        [(model, "validation") for model in models], schema_generator=WithoutFieldTitles
    )
    defs = schema["$defs"]
    for section, found in options.items():
        for name, model in found.items():
            defs[section.__name__].setdefault("properties", {})[name] = places[model, "validation"]
    root = defs.pop(Recipe.__name__)
    head = {"$schema": GenerateJsonSchema.schema_dialect, "$id": "recipe.schema.json", "title": "batchchat recipe"}
    return {**head, "$defs": defs, **{key: value for key, value in root.items() if key != "title"}}


def _options(section: type[OpenSection], added: bool) -> dict[str, type[BaseModel]]:
    found: dict[str, type[BaseModel]] = {}
    for table in section.tables:
        for name in table if added else table.builtin:
            try:
                found.update((name, model) for _, model in option_models(section, name))
            except EnvironmentFault:
                continue
    return found


@cache
def _root(added: bool = False) -> Node:
    """The recipe's schema with every reference replaced by what it refers to; without `added`, `node_at` looks at what
    packages add only where a path names it."""
    schema = recipe_json_schema(added=added)
    return _linked(schema, schema["$defs"])


@cache
def _options_node(model: type[BaseModel]) -> Node:
    schema = model.model_json_schema(schema_generator=WithoutFieldTitles)
    return _linked(schema, schema.get("$defs", {}))


def _linked(schema: Node, defs: Mapping[str, Node]) -> Node:
    done: dict[str, dict[str, Any]] = {}

    def link(node: Any) -> Any:
        if isinstance(node, list):
            return [link(item) for item in node]
        if not isinstance(node, Mapping):
            return node
        if "$ref" not in node:
            return {key: link(value) for key, value in node.items() if key != "$defs"}
        name = node["$ref"].rpartition("/")[2]
        if name not in done:
            done[name] = {}  # which is there for a definition that refers to itself
            done[name].update(link(defs[name]))
        return (
            {**done[name], **{key: value for key, value in node.items() if key != "$ref"}}
            if len(node) > 1
            else done[name]
        )

    linked: Node = link(schema)
    return linked


@cache
def settings(added: bool = False) -> tuple[Setting, ...]:
    """Every setting of every section, in the recipe's order; with `added`, of what packages add, too."""
    return tuple(_settings(_root(added), ""))


@cache
def sections(added: bool = False) -> Mapping[str, str]:
    """The dotted path of every section -> its description; "" is the recipe itself."""
    return dict(_sections(_root(added), ""))


@cache
def repeated(added: bool = False) -> Mapping[str, Node]:
    """The sections that a recipe holds once or not at all, or any number of, with their schemas: forms, a simulated
    user, tools, one for each scorer, `scoring[].NAME`, those of a judge, `judges.NAME`, of a reward model, and the
    steps of `keep`."""
    top = _root(added)["properties"]
    entry = _section_in(top["scoring"]["items"])
    scorers = {f"scoring[].{name}": node for name, node in entry["properties"].items()}
    models = {f"{name}.NAME": top[name]["additionalProperties"] for name in ("judges", "rewards")}
    step = _section_in(top["keep"]["items"])
    steps = {f"keep[].{name}": _section_in(step["properties"][name]) for name in ("duplicates", "contaminated", "best")}
    optional = {
        "generation.structured": _section_in(top["generation"]["properties"]["structured"]),
        "simulate": _section_in(top["simulate"]),
        "tools": _section_in(top["tools"]),
    }
    servers = {"tools.mcp.NAME": optional["tools"]["properties"]["mcp"]["additionalProperties"]}
    return {**optional, **servers, **scorers, **models, "keep[]": step, **steps}


def _section_in(node: Node) -> Node:
    return next(branch for branch in _branches(node) if "properties" in branch)


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
    names = [name for branch in _branches(node or {}) for name in (*branch.get("properties", ()), *_added(branch))]
    return list(dict.fromkeys(names))


def node_at(path: Sequence[str | int]) -> Node | None:
    """The schema of a value in the recipe, also inside of lists and mappings; None where no schema describes it."""
    node: Node | None = _root()
    for piece in path:
        node = next((child for branch in _branches(node or {}) for child in _children(branch, piece)), None)
    return node


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
        case "object" if isinstance(branch.get("additionalProperties"), Mapping):
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


def _branches(node: Node) -> Iterator[Node]:
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
        elif piece in _added(branch):
            for _, model in option_models(_OPEN[branch["title"]], str(piece)):
                yield _options_node(model)
        elif isinstance(branch.get("additionalProperties"), Mapping):
            yield branch["additionalProperties"]


def _added(branch: Node) -> list[str]:
    """The names under which packages may have options in an open section; empty for other nodes."""
    section = _OPEN.get(branch.get("title", ""))
    return [] if section is None else [name for table in section.tables for name in table.added()]


def _settings(section: Node, prefix: str) -> Iterator[Setting]:
    for name, node in section["properties"].items():
        if "properties" in node:
            yield from _settings(node, f"{prefix}{name}.")
        else:
            yield Setting(f"{prefix}{name}", node, name in section.get("required", ()))


def _sections(section: Node, path: str) -> Iterator[tuple[str, str]]:
    yield path, section["description"]
    for name, node in section["properties"].items():
        if "properties" in node:
            yield from _sections(node, f"{path}.{name}" if path else name)
