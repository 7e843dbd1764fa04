"""What a recipe says about its input, in the words of sources and formats."""

from __future__ import annotations

from pathlib import Path

from batchchat.chats.formats import ReadOptions
from batchchat.plugins.tables import SOURCES
from batchchat.recipe import Recipe
from batchchat.sources.files import DataFile
from batchchat.sources.opening import named_source
from batchchat.sources.paths import find
from batchchat.sources.source import STDIN, Source, open_source


def read_options(recipe: Recipe) -> ReadOptions:
    """What the recipe says about reading rows, in the words of the formats."""
    columns = recipe.source.columns.model_dump(exclude_none=True)
    return ReadOptions(
        turns=recipe.chat.turns,
        prefill=recipe.chat.prefill,
        system=recipe.chat.system,
        columns=columns,
        prompt_template=recipe.source.prompt_template,
        server=recipe.engine.needs.server,
        own=recipe.source.options_of(recipe.source.format),
    )


def open_recipe_source(recipe: Recipe) -> Source:
    """The input that a recipe names. Raises UsageError where it cannot be read at all."""
    section = recipe.source
    return open_source(
        section.path,
        split=section.split,
        subset=section.subset,
        revision=section.revision,
        streaming=section.streaming,
        options=section.options_of,
    )


def recipe_files(recipe: Recipe) -> list[Path] | None:
    """The files that the input is read from, without opening one; None where it is more than files: standard input, a
    data set of the hub, what a package reads. Raises UsageError where a path stands for nothing."""
    found: list[Path] = []
    for path in recipe.source.path:
        named = named_source(path)
        if named is not None and SOURCES[named[0]].open_address is not None:
            return None
        rest = path if named is None else named[1]
        if rest == STDIN:
            return None
        for item in find(rest, recipe.source.split):
            match item:
                case DataFile():
                    found.append(item.path)
                case Path():
                    found += sorted(file for file in item.rglob("*") if file.is_file())
                case str():
                    return None
    return found
