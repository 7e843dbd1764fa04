"""The recipe's settings for reading: a Markdown page, and a commented recipe to start from."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from batchchat.recipe.dumping import to_inline_yaml
from batchchat.recipe.json_schema import Setting, allowed, repeated, sections, settings, settings_of
from batchchat.scoring.base import ScorerOptions

EDITOR_LINE = "# yaml-language-server: $schema="
"""Before the path of the JSON schema, in a recipe's first line: editors then complete and check it."""


def markdown_page() -> str:
    """Every setting of every section as Markdown tables."""
    lines = ["# Options of a recipe", ""]
    lines += ["Made from the schema by `batchchat schema --markdown --output docs/OPTIONS.md`; not written by hand."]
    for path, description in sections(added=True).items():
        lines += ["", f"## `{path}`" if path else "## Top level", "", description]
        lines += _table([setting for setting in settings(added=True) if setting.section == path], lambda s: s.name)
    common = ScorerOptions.model_fields
    a_scorer = next(node for path, node in repeated(added=True).items() if path.startswith("scoring"))
    of_exact = [setting for setting in settings_of(a_scorer) if setting.path in common]
    lines += ["", "## `scoring[].*`", "", "Options that every scorer has.", *_table(of_exact, lambda s: s.path)]
    for path, node in repeated(added=True).items():
        own = [s for s in settings_of(node) if not path.startswith("scoring") or s.path not in common]
        lines += ["", f"## `{path}`", "", node["description"].replace("\n", " "), *_table(own, lambda s: s.path)]
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Setting], name: Callable[[Setting], str]) -> list[str]:
    if not rows:
        return []
    head = ["", "| setting | values | default | meaning |", "|---|---|---|---|"]
    return [*head, *(_row(setting, name(setting)) for setting in rows)]


def commented_recipe(
    values: Mapping[str, Any], shown: Collection[str], notes: Mapping[str, str], head: Sequence[str]
) -> str:
    """A recipe that sets `values` (by dotted path), and lists the settings of `shown` besides them, commented out.

    Every setting is preceded by its description, and by the note on it, if there is one. `head` are the comment lines
    at the top.
    """
    lines = [f"# {_printable(line)}" for line in head]
    opened: list[str] = []
    for setting in settings():
        if setting.path not in values and setting.path not in shown:
            continue
        pieces = setting.section.split(".") if setting.section else []
        for depth in range(len(pieces)):
            if opened[: depth + 1] != pieces[: depth + 1]:
                lines += [""] * (depth == 0)
                lines += _comment(sections()[".".join(pieces[: depth + 1])], depth)
                lines += ["  " * depth + f"{pieces[depth]}:"]
        opened = pieces
        lines += [""] * (not pieces)
        lines += _comment(setting.description, len(pieces))
        lines += _comment(notes.get(setting.path, ""), len(pieces))
        if setting.path in values:
            lines += ["  " * len(pieces) + f"{setting.name}: {to_inline_yaml(values[setting.path])}"]
        else:
            lines += ["  " * len(pieces) + f"# {setting.name}: {to_inline_yaml(_suggestion(setting))}"]
    return "\n".join(lines) + "\n"


def _suggestion(setting: Setting) -> Any:
    """What a commented line shows: the default, or an example where the default is to leave the setting open."""
    default = setting.node.get("default")
    return setting.node["examples"][0] if default in (None, [], {}) and "examples" in setting.node else default


def _comment(text: str, depth: int) -> Iterator[str]:
    indent = "  " * depth
    lines = textwrap.wrap(_printable(text), 110 - len(indent), break_long_words=False, break_on_hyphens=False)
    return (f"{indent}# {line}" for line in lines)


def _printable(text: str) -> str:
    """Without the characters that would end a comment's line or that YAML refuses: names of files and columns are
    not ours."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _row(setting: Setting, name: str) -> str:
    default = "required" if setting.required else f"`{to_inline_yaml(setting.node.get('default'))}`"
    meaning = setting.description
    if "examples" in setting.node:
        meaning += (
            " For example " + ", ".join(f"`{to_inline_yaml(example)}`" for example in setting.node["examples"]) + "."
        )
    if setting.node.get("x-may-change-on-resume"):
        meaning += " May change when a run is resumed."
    values = re.sub(r"that matches (\S*[^\s,])", r"that matches `\1`", allowed(setting.node))  # brackets would be links
    cells = (f"`{name}`", values, default, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
