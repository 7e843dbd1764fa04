"""Plain values to a `Recipe`, or to all that is wrong with them in the words of the recipe's own schema."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from batchchat.credentials import holds_credentials
from batchchat.recipe.dumping import to_inline_yaml
from batchchat.recipe.json_schema import Node, allowed, choices, kind_of, kinds, names_at, node_at
from batchchat.recipe.located import Located, Path
from batchchat.recipe.mistakes import Mistake, RecipeError, dotted
from batchchat.recipe.names import advice
from batchchat.recipe.schema import Recipe


def validate(located: Located) -> Recipe:
    """The recipe, or a RecipeError with every mistake that was found, those of `located` included."""
    secrets = [
        Mistake(
            located.origin(path).spot,
            dotted(path),
            f"{dotted(path)} holds an address with a password or a key in it, which would be kept with the results; "
            "give the address without, and log in otherwise (hf auth login, environment variables)",
        )
        for path, text in _texts(located.data)
        if (path[0] == "gates" or not any(map(str.isspace, text))) and holds_credentials(text)
    ]
    if secrets:
        raise RecipeError(secrets)
    mistakes = list(located.mistakes)
    try:
        recipe = Recipe.model_validate(located.data)
    except ValidationError as error:
        mistakes += _mistakes(error, located)
    if mistakes:
        raise RecipeError(mistakes)
    return recipe


def _texts(data: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every text among the values, with its place."""
    if isinstance(data, str):
        yield path, data
    elif isinstance(data, Mapping):
        for key, value in data.items():
            yield from _texts(value, (*path, key))
    elif isinstance(data, list | tuple):
        for place, value in enumerate(data):
            yield from _texts(value, (*path, place))


def _mistakes(error: ValidationError, located: Located) -> Iterator[Mistake]:
    """One mistake per value: the branches of a union complain one by one, and of those the deepest is meant."""
    by_path: dict[Path, ErrorDetails] = {}
    for details in error.errors(include_url=False):
        by_path.setdefault(_path(details, located.data), details)
    for path, details in by_path.items():
        if not any(other[: len(path)] == path and other != path for other in by_path):
            yield from _sentences(path, details, located)


def _path(details: ErrorDetails, data: Any) -> Path:
    """Where in the data: the location without the names of union branches, which are no keys of it."""
    path: list[str | int] = []
    for piece in details["loc"]:
        if isinstance(data, Mapping):
            key = next((key for key in (piece, str(piece)) if key in data), None)
        else:
            key = piece if isinstance(data, (list, tuple)) and piece in range(len(data)) else None
        if key is not None:
            path.append(key)
            data = data[key]
        elif details["type"] == "missing" and isinstance(data, Mapping):
            path.append(piece)
    return tuple(path)


def _sentences(path: Path, details: ErrorDetails, located: Located) -> Iterator[Mistake]:
    name, spot = dotted(path), located.origin(path).spot
    match details["type"]:
        case "extra_forbidden" | "invalid_key":
            section, key = dotted(path[:-1]), str(path[-1])
            name = f"{section}.{key}" if section else key
            yield Mistake(spot, name, f"{name} is not a setting; {advice(section, key, names_at(path[:-1]))}")
        case "missing" if isinstance(details["loc"][-1], str):
            for missing, node in _required(path):
                example = (
                    f", for example {missing}: {to_inline_yaml(node['examples'][0])}" if "examples" in node else ""
                )
                yield Mistake(spot, missing, f"{missing} is missing; write it{example}")
        case "value_error":
            yield Mistake(spot, name, f"{name} {details['ctx']['error']}")
        case _ if details["loc"][-1] == "[key]":
            holder = dotted(path[:-1])
            yield Mistake(spot, name, f"{holder} has the name {json.dumps(path[-1])}: {details['msg']}")
        case _:
            yield Mistake(spot, name, _sentence(path, details, located))


def _required(path: Path) -> Iterator[tuple[str, Node]]:
    """The settings without a default at `path`, or in the section there."""
    node = node_at(path) or {}
    if "properties" not in node:
        yield dotted(path), node
    for name in node.get("required", ()):
        yield from _required((*path, name))


def _sentence(path: Path, details: ErrorDetails, located: Located) -> str:
    """`generation.top_p is 1.5; it must be a number (above 0, at most 1), or null`."""
    name, value = dotted(path), _value(located.data, path)
    if details["type"] == "string_unicode":
        return f"{name} is {_given(value, None)}, which is not UTF-8; rename what it names, or use a pattern such as *"
    plain = located.origins[path].plain if path in located.origins else None
    given = _given(value, plain)
    node = node_at(path)
    if node is None:
        return f"{name} is {given}: {details['msg']}"
    return f"{name} is {given}; it must be {allowed(node)}{_hint(value, plain, node)}"


def _value(data: Any, path: Path) -> Any:
    for piece in path:
        data = data[piece]
    return data


def _given(value: Any, plain: str | None) -> str:
    """A value as it was written; where YAML reads it as something else than it looks like, that too."""
    kind = kind_of(value)
    if value is None or value == "":
        return plain or "empty"
    if kind == "array":
        return f"a list of {len(value)}"
    if kind == "object":
        return "a mapping"
    if kind == "string":
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= 60 else f"{text[:57]}…"
    if kind == "boolean":
        meaning = str(value).lower()
        return meaning if plain is None or plain.lower() == meaning else f"{plain}, which YAML reads as {meaning}"
    if kind in ("integer", "number"):
        return plain or str(value)
    return f"{plain or value}, which YAML reads as a {kind}"


def _hint(value: Any, plain: str | None, node: Node) -> str:
    """What to write, where it can be known."""
    near = difflib.get_close_matches(plain or str(value), choices(node), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    wanted = kinds(node)
    if plain and not isinstance(value, str) and ("string" in wanted or not wanted) and not choices(node):
        return f'; in quotes it is text: "{plain}"'
    if isinstance(value, str) and wanted & {"integer", "number", "boolean"}:
        meant = _unquoted(value)
        if kind_of(meant) in wanted - {"null"} or (kind_of(meant) == "integer" and "number" in wanted):
            right = to_inline_yaml(meant)
            return f"; YAML reads {plain} as text, write {right}" if plain else f"; write {right} without quotes"
    return ""


def _unquoted(text: str) -> Any:
    """The number or boolean that a text looks like; YAML 1.1 takes `1e-3` for text."""
    try:
        number = float(text)
        return int(number) if number.is_integer() else number
    except (ValueError, OverflowError):
        return {"true": True, "false": False}.get(text.lower())
