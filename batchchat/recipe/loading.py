"""A recipe from a YAML file or a mapping, checked as a whole before anything else happens."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batchchat.errors import UsageError
from batchchat.plugins.builtin import BUILTIN, builtin_recipe
from batchchat.recipe.json_schema import kind_of
from batchchat.recipe.located import Located, Origin, read_yaml
from batchchat.recipe.mistakes import Mistake, RecipeError, Spot
from batchchat.recipe.overrides import apply_overrides
from batchchat.recipe.schema import Recipe
from batchchat.recipe.validation import validate

MAX_BYTES = 1_000_000
"""Larger than any recipe: a data file that was taken for one is not read to its end."""


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file (or `builtin:NAME`), with overrides `section.setting=value` laid over it.

    Raises RecipeError with all mistakes of the file and the overrides, UsageError where the file cannot be read.
    """
    return _checked(read_located(path), overrides)


def read_located(path: str | Path) -> Located:
    """What a YAML file (or `builtin:NAME`) says, unchecked, with the place of everything. Raises as `load_recipe`."""
    name = str(path)
    file = builtin_recipe(name.removeprefix(BUILTIN)) if name.startswith(BUILTIN) else Path(path)
    return read_yaml(_text(file, name), "the recipe", lambda line: Spot(line, f"{name}:{line}"))


def recipe_from_mapping(data: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a mapping, as `load_recipe` would read it from a file. The mapping is left as it is."""
    return _checked(Located(copy.deepcopy(dict(data)), {(): Origin(Spot(0, "the recipe"))}), overrides)


def _checked(located: Located, overrides: Sequence[str]) -> Recipe:
    spot = located.origin(()).spot
    if located.data is None:
        raise RecipeError([Mistake(spot, "", "the recipe is empty; make one for your data with: batchchat init FILE")])
    if not isinstance(located.data, dict):
        what = {"array": "a list", "string": "one text"}.get(kind_of(located.data), f"one {kind_of(located.data)}")
        text = f"the recipe is {what}, not sections with settings; make one for your data with: batchchat init FILE"
        raise RecipeError([Mistake(spot, "", text)])
    apply_overrides(located, overrides)
    return validate(located)


def _text(file: Path, name: str) -> str:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"there is no recipe {name}; make one with: batchchat init FILE --output {name}") from error
    except IsADirectoryError as error:
        raise UsageError(f"{name} is a folder, not a recipe; name the YAML file in it") from error
    except PermissionError as error:
        raise UsageError(f"{name} may not be read by you; try: chmod u+r {name}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"the recipe {name!r} cannot be read: {error}") from error
    if len(raw) > MAX_BYTES:
        raise UsageError(
            f"{name} is too large for a recipe; if it holds chats, make a recipe with: batchchat init {name}"
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{name}:{line} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
