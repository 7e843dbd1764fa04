"""`section.setting=value` from the command line, laid over a recipe's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from batchchat.recipe.json_schema import kind_of, kinds, node_at
from batchchat.recipe.located import Located, Origin, Path, read_yaml
from batchchat.recipe.mistakes import Mistake, RecipeError, Spot, dotted

_AFTER_THE_FILE = 1_000_000
"""Overrides come behind the lines of any file in the list of mistakes."""


def apply_overrides(located: Located, overrides: Sequence[str]) -> None:
    """Lays each override over `located`, the later over the earlier; what is wrong with one is added to its mistakes.

    The first `=` ends the name. Values are YAML; a list or a mapping replaces what was there, and a longer name
    (`chat.template_kwargs.enable_thinking=false`) reaches into a mapping. Where a setting takes text and the value is
    no YAML text, it is taken as it stands, so that a shell needs no second pair of quotes:
    `source.path=*.jsonl`, `source.path=-`, `model.revision=1234`.
    """
    for number, override in enumerate(overrides):
        name, equals, _ = override.partition("=")  # what is no setting of this name may be a secret
        spot = Spot(_AFTER_THE_FILE + number, f"override '{name}{equals and '=…'}'")
        try:
            _apply(located, override, spot)
        except RecipeError as error:
            located.mistakes += error.mistakes


def _apply(located: Located, override: str, spot: Spot) -> None:
    name, equals, text = override.partition("=")
    name = name.strip()
    path: Path = tuple(name.split("."))
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise _error(spot, "", "the name of a setting is not UTF-8; batchchat schema --markdown lists them all")
    if not equals or not all(path):
        raise _error(spot, "", "an override is section.setting=value, for example generation.max_new_tokens=64")
    if not text.strip():
        raise _error(spot, name, f"{name} gets no value; write one, or null to leave it open")
    value = _read(path, text, spot)
    section = _section(located, path, spot)
    section[path[-1]] = value.data
    for stale in [known for known in located.origins if known[: len(path)] == path]:
        del located.origins[stale]
    located.origins |= value.origins
    located.mistakes += value.mistakes


def _read(path: Path, text: str, spot: Spot) -> Located:
    """The value as YAML, or as the text that it is, where the setting takes that and not what YAML makes of it."""
    node = node_at(path)
    takes = kinds(node) if node is not None else frozenset()
    as_text = Located(text, {path: Origin(spot)})
    if text == "-":
        return as_text
    try:
        value = read_yaml(text, f"the value of {dotted(path)}", lambda line: spot, path)
    except RecipeError:
        if "string" in takes:
            return as_text
        raise
    if "string" in takes and (value.mistakes or kind_of(value.data) not in takes):
        return as_text
    return value


def _section(located: Located, path: Path, spot: Spot) -> dict[Any, Any]:
    """The mapping that holds the last name of `path`; empty sections on the way to it are made."""
    data: dict[Any, Any] = located.data
    for depth, piece in enumerate(path[:-1], start=1):
        inner = data.get(piece)
        if inner is None:
            inner = data[piece] = {}
            located.origins.setdefault(path[:depth], Origin(spot))
        if not isinstance(inner, dict):
            held = dotted(path[:depth])
            raise _error(
                spot, dotted(path), f"{dotted(path)} cannot be set: {held} is no mapping; replace it with {held}=…"
            )
        data = inner
    return data


def _error(spot: Spot, field: str, text: str) -> RecipeError:
    return RecipeError([Mistake(spot, field, text)])
