"""From the command line, or from `!set`, to a recipe: a chat is made from the same settings as a run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchchat.chats import SourceRow
from batchchat.chats.formats import FORMATS, detect_format
from batchchat.errors import BadRow, UsageError
from batchchat.plugins.builtin import BUILTIN, builtin_names
from batchchat.recipe import Recipe, load_recipe, recipe_from_mapping
from batchchat.sources.from_recipe import open_recipe_source, read_options

_FLAG = re.compile(r"[\w.]*=")
_SECTIONS = ("model", "chat", "generation", "engine")
_FIXED = ("model", "engine")
"""Sections that are read when the chat begins."""
_NOT_IN_A_CHAT: Mapping[str, str] = {
    "generation.samples": "a chat gets one answer at a time; type !retry for another one",
    "chat.turns": "a chat answers each turn as it is typed; leave it out",
    "chat.prefill": "a chat answers each turn as it is typed; leave it out",
}


@dataclass(frozen=True)
class OfferedTools:
    """The tools of a recipe's first row and where they stand; without any, why (None: the row just has none)."""

    tools: tuple[Mapping[str, Any], ...] | None = None
    place: str | None = None
    reason: str | None = None


def open_recipe(arguments: Sequence[str]) -> Recipe:
    """The recipe of a chat from `[MODEL | recipe.yaml] [flag=value …]`.

    A flag without a dot is one of the `generation` section. Raises UsageError for what cannot be used, each thing
    named.
    """
    target, flags = None, list(arguments)
    if flags and not _FLAG.match(flags[0]):
        target = flags.pop(0)
    overrides = _overrides(flags, _SECTIONS)
    if target is not None and _is_recipe(target):
        recipe = load_recipe(target, overrides)
    else:
        model = {} if target is None else {"name": target}
        recipe = recipe_from_mapping({"name": "chat", "model": model, "source": {"path": "-"}}, overrides)
    return _for_a_chat(recipe)


def changed(recipe: Recipe, flags: Sequence[str]) -> Recipe:
    """The recipe with other settings, for `!set`. Raises UsageError for those that a running chat cannot change."""
    for flag in flags:
        section = flag.partition(".")[0]
        if section in _FIXED:
            raise UsageError(f"{flag} cannot be changed in a running chat; leave with !exit and add it to the command")
    overrides = _overrides(flags, ("chat", "generation"))
    return recipe_from_mapping(recipe.model_dump(exclude_unset=True), overrides)


def with_system(recipe: Recipe, text: str | None) -> Recipe:
    """The recipe with another system turn."""
    return recipe.model_copy(update={"chat": recipe.chat.model_copy(update={"system": text})})


def offered_tools(recipe: Recipe) -> OfferedTools:
    """The tools that the first row of a recipe's input offers. Never raises: a chat can do without them."""
    if "-" in recipe.source.path:
        return OfferedTools()
    try:
        with open_recipe_source(recipe) as source:
            row = next(iter(source.rows()), None)
        if not isinstance(row, SourceRow):
            return OfferedTools(reason=row.reason if row is not None else "the input holds no rows")
        options = read_options(recipe)
        named = recipe.source.format
        found = FORMATS[detect_format(row.data, options) if named == "auto" else named]
        return OfferedTools(found.read(row, 0, options).tools, str(row.place))
    except (UsageError, BadRow) as error:
        return OfferedTools(reason=str(error))


def _overrides(flags: Sequence[str], sections: Sequence[str]) -> list[str]:
    """Flags as overrides of a recipe. `None` is null, as transformers' own chat has it."""
    overrides = []
    for flag in flags:
        name, equals, value = flag.partition("=")
        if not equals or not name:
            raise UsageError(f"{flag!r} is no flag; write flag=value, for example max_new_tokens=64")
        path = name if "." in name else f"generation.{name}"
        if path in _NOT_IN_A_CHAT:
            raise UsageError(f"{path} has no meaning in a chat: {_NOT_IN_A_CHAT[path]}")
        if path.partition(".")[0] in set(Recipe.model_fields) - set(sections):
            raise UsageError(
                f"{path} has no meaning in a chat, which reads {' and '.join(f'{section}.*' for section in sections)}; "
                "leave it out"
            )
        overrides.append(f"{path}={'null' if value == 'None' else value}")
    return overrides


def _is_recipe(target: str) -> bool:
    if target.startswith(BUILTIN):
        name = target.removeprefix(BUILTIN)
        return name in {known for file in builtin_names("recipe") for known in (file, Path(file).stem)}
    return Path(target).suffix in (".yaml", ".yml") or Path(target).is_file()


def _for_a_chat(recipe: Recipe) -> Recipe:
    """One answer to each turn, whatever a run of the recipe would do."""
    generation = recipe.generation.model_copy(update={"samples": 1})
    chat = recipe.chat.model_copy(update={"turns": "scripted", "prefill": False})
    return recipe.model_copy(update={"generation": generation, "chat": chat})
