"""A recipe with a matrix to the recipes of its runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from pydantic import JsonValue

from batchchat.errors import UsageError
from batchchat.recipe.dumping import to_inline_yaml
from batchchat.recipe.loading import recipe_from_mapping
from batchchat.recipe.matrix import Values
from batchchat.recipe.schema import Recipe

MOST_RUNS = 100
_NAME = 80


@dataclass(frozen=True)
class Cell:
    """One run of a matrix: its recipe, and by setting what it is called there."""

    recipe: Recipe
    labels: Mapping[str, str]


def num_runs(recipe: Recipe) -> int:
    """How many runs the recipe is; 1 without a matrix."""
    return prod(len(values) for values in recipe.matrix.values())


def expand(recipe: Recipe, most: int = MOST_RUNS) -> list[Cell]:
    """The runs of a recipe's matrix, the last setting varying fastest, named after their values. Raises UsageError for
    more than `most` of them, and for a combination that is no recipe, before any is run."""
    count = num_runs(recipe)
    if count > most:
        raise UsageError(
            f"the matrix makes {count:,} runs ({' × '.join(f'{len(v):,} of {s}' for s, v in recipe.matrix.items())}), "
            f"more than {most:,}; leave values out, or allow them with --max-runs {count}"
        )
    if "{name}" not in recipe.sink.directory:
        raise UsageError("a matrix makes several runs, but sink.directory has no {name}; write runs/{name}")
    base = recipe.model_dump(exclude_none=True, exclude={"matrix"})
    cells: list[Cell] = []
    names: set[str] = set()
    for chosen in product(*(_named(setting, values) for setting, values in recipe.matrix.items())):
        labels = {setting: label for setting, label, _ in chosen}
        name = _unused(f"{recipe.name}-{'-'.join(map(_slug, labels.values()))}"[:_NAME].rstrip("-._"), names)
        data: dict[str, Any] = {**base, "name": name}
        for setting, _, value in chosen:
            data = _with(data, setting.split("."), value)
        try:
            cells.append(Cell(recipe_from_mapping(data), labels))
        except UsageError as error:
            said = ", ".join(f"{setting}={label}" for setting, label in labels.items())
            raise UsageError(f"the matrix with {said} is no recipe: {error}") from error
    return cells


def _named(setting: str, values: Values) -> Iterator[tuple[str, str, JsonValue]]:
    if isinstance(values, Mapping):
        yield from ((setting, label, value) for label, value in values.items())
    else:
        yield from ((setting, value if isinstance(value, str) else to_inline_yaml(value), value) for value in values)


def _slug(label: str) -> str:
    """What of a label may stand in a folder's name; of a path its last part."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", label.rstrip("/").rpartition("/")[2]).strip("-._")[:30] or "x"


def _unused(name: str, names: set[str]) -> str:
    found, number = name, 2
    while found in names:
        found, number = f"{name}-{number}", number + 1
    names.add(found)
    return found


def _with(data: Mapping[str, Any], path: list[str], value: JsonValue) -> dict[str, Any]:
    """The mapping with a value at a path."""
    name, *rest = path
    inner = data.get(name)
    if not rest:
        return {**data, name: value}
    return {**data, name: _with(inner if isinstance(inner, Mapping) else {}, rest, value)}
