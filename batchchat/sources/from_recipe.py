"""What a recipe says about its input, in the words of sources and formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchchat.chats.formats import ReadOptions
from batchchat.chats.formats.options import parse_template
from batchchat.errors import UsageError
from batchchat.plugins.builtin import BUILTIN, builtin_template
from batchchat.plugins.tables import SOURCES
from batchchat.recipe import Recipe
from batchchat.sources.files import DataFile
from batchchat.sources.opening import named_source
from batchchat.sources.paths import find
from batchchat.sources.source import STDIN, Source, open_source


def read_options(recipe: Recipe, offered: Sequence[Mapping[str, Any]] | None = None) -> ReadOptions:
    """What the recipe says about reading rows, in the words of the formats. `offered` are the tools that it runs, as
    the run's store keeps them (`tools`)."""
    columns = recipe.source.columns.model_dump(exclude_none=True)
    return ReadOptions(
        turns=recipe.chat.turns,
        prefill=recipe.chat.prefill,
        system=recipe.chat.system,
        columns=columns,
        prompt_template=recipe.source.prompt_template,
        prompt_templates=tuple(read_template_file(name, "source.prompt_files") for name in recipe.source.prompt_files),
        server=recipe.engine.needs.server,
        own=recipe.source.options_of(recipe.source.format),
        runs_tools=recipe.runs_tools,
        offered=tuple(offered or ()),
        **_simulated(recipe),
    )


def _simulated(recipe: Recipe) -> dict[str, Any]:
    if recipe.simulate is None:
        return {}
    systems = tuple((system.text, system.weight) for system in recipe.simulate.systems)
    return {"simulated": recipe.simulate.turns, "systems": systems, "seed": recipe.generation.seed}


def read_template_file(name: str, setting: str) -> str:
    """A text with {column} placeholders from a file, or from one that comes along (`builtin:NAME`). The line's end
    that closes a file is no part of it. Raises UsageError."""
    path = _template_path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the template {name} cannot be read ({error}); set {setting} to a UTF-8 text file") from error
    text = text.removesuffix("\n")
    if not text.strip():
        raise UsageError(f"the template {name} is empty; write a text with {{column}} placeholders into it")
    parse_template(text, setting)
    return text


def template_files(recipe: Recipe) -> list[Path]:
    """The files of templates that a recipe names."""
    user = () if recipe.simulate is None else (recipe.simulate.instructions,)
    return [_template_path(name) for name in (*recipe.source.prompt_files, *user)]


def _template_path(name: str) -> Path:
    return builtin_template(name.removeprefix(BUILTIN)) if name.startswith(BUILTIN) else Path(name).expanduser()


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
