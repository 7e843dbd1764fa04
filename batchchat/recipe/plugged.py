"""Which entries of installed packages take part in a recipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batchchat.plugins.tables import ENGINES, FORMATS, SCORERS, SOURCES, WRITERS, Registry
from batchchat.recipe.schema import Recipe


def plugins_of(recipe: Recipe) -> list[dict[str, str]]:
    """`{"kind", "name", "package", "version"}` of each one that the recipe names."""
    found = []
    for table, name in dict.fromkeys(_named(recipe)):
        package = table.package(name)
        if package is not None:
            found.append({"kind": table.kind, "name": name, "package": package.name, "version": package.version})
    return found


def _named(recipe: Recipe) -> Iterator[tuple[Registry[Any], str]]:
    yield ENGINES, recipe.engine.kind
    yield from ((ENGINES, judge.engine.kind) for judge in recipe.judges.values())
    if recipe.user is not None:
        yield ENGINES, recipe.user.engine.kind
    if recipe.source.format != "auto":
        yield FORMATS, recipe.source.format
    names = (path.partition(":")[0] for path in recipe.source.path if ":" in path)
    yield from ((SOURCES, name) for name in names if name in SOURCES)
    yield from ((SCORERS, entry.scorer) for entry in recipe.scoring)
    yield from ((WRITERS, name) for name in recipe.sink.formats)
