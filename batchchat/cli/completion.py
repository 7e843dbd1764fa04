"""What a shell completes: recipes, and the settings and values of overrides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from typer import Context

if TYPE_CHECKING:
    from batchchat.recipe.json_schema import Setting

_BREAKS = ("=", ":")
"""Where bash parts a word in two."""


def complete_recipe(incomplete: str) -> list[str]:
    """Recipes that come along, YAML files and folders."""
    from batchchat.plugins.builtin import BUILTIN, builtin_names

    builtin = [BUILTIN + name for name in builtin_names("recipe")]
    folder, _, start = incomplete.rpartition("/")
    here = Path(f"{folder}/") if "/" in incomplete else Path()
    before = f"{folder}/" if "/" in incomplete else ""
    try:
        entries = sorted(here.expanduser().iterdir())
    except OSError:
        entries = []
    shown = [entry for entry in entries if start.startswith(".") or not entry.name.startswith(".")]
    files = [before + entry.name for entry in shown if entry.suffix in (".yaml", ".yml")]
    folders = [f"{before}{entry.name}/" for entry in shown if entry.is_dir()]
    return [name for name in (*builtin, *files, *folders) if name.startswith(incomplete)]


def complete_override(ctx: Context, incomplete: str) -> list[str]:
    """Names of settings, and behind a name that is complete the values that it may have."""
    before = _parted(ctx, incomplete)
    typed = before + ("" if incomplete == ":" else incomplete)
    found = complete_recipe(typed) if typed.startswith("builtin:") else _overrides(typed)
    return [name.removeprefix(before) for name in found]


def _parted(ctx: Context, incomplete: str) -> str:
    """What bash took for words of their own before the one that is completed: `engine.kind=`, `builtin:`."""
    words = [str(word) for word in (ctx.params.get("recipe"), *(ctx.params.get("overrides") or ())) if word]
    *_, name, last = ("", "", *words)
    if last in _BREAKS:
        return name + last
    if incomplete == ":":
        return f"{last}:"
    # A name without a value behind it is no override: what bash parted from it, "=", arrives as nothing.
    return f"{last}=" if not incomplete and last in _settings() else ""


def _settings() -> dict[str, Setting]:
    from batchchat.recipe.json_schema import settings

    return {setting.path: setting for setting in settings(added=True)}


def _overrides(typed: str) -> list[str]:
    name, equals, _ = typed.partition("=")
    names = _settings()
    if not equals:
        found = [known for known in names if known.startswith(name)]
        if len(found) != 1:
            return [f"{known}=" for known in found]
        name = found[0]
    if name not in names:
        return []
    values = [f"{name}={value}" for value in names[name].suggestions]
    return [value for value in values if value.startswith(typed)] or ([] if equals else [f"{name}="])
