"""`batchchat init`: a commented recipe for a file of chats, made by looking at its first rows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from batchchat.chats import RowError, SourceRow
    from batchchat.chats.formats.options import Turns

NUM_ROWS = 100
"""Rows that are looked at."""

SHOWN = (
    "model.dtype",
    "model.quantization",
    "source.limit",
    "source.sample",
    "chat.system",
    "chat.overflow",
    "generation.temperature",
    "generation.top_p",
    "generation.samples",
    "generation.stop",
    "generation.seed",
    "engine.max_batch_tokens",
    "sink.directory",
    "max_error_rate",
)
"""Settings that a new recipe lists besides those that it sets."""


@dataclass(frozen=True)
class Findings:
    """What the first rows show. `format` is None where they show several."""

    rows: int
    format: str | None
    columns: tuple[str, ...]
    turns: Turns
    bad: int
    first_bad: str | None


def init(
    file: Annotated[str, typer.Argument(help="Input file, glob or data set, as in source.path.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write.")] = Path("recipe.yaml"),
    split: Annotated[
        str | None, typer.Option("--split", help="Of several splits the one to read; test is preferred.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Write a commented recipe for an input file."""
    from batchchat.errors import UsageError
    from batchchat.sources import open_source
    from batchchat.sources.source import splits_of
    from batchchat.sources.splits import pick_split

    splits = splits_of(file)
    picked = pick_split(splits) if split is None and len(splits) > 1 else split
    with open_source([file], split=picked) as source:
        found = look(list(islice(source.rows(), NUM_ROWS)), file)
    text = draft(file, output, found, picked, splits)
    try:
        with output.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UsageError(f"{output} exists; replace it with --force, or name another file with --output") from error
    except OSError as error:
        raise UsageError(f"{output} cannot be written ({error.strerror}); name another file with --output") from error
    if picked is not None and len(splits) > 1:
        typer.echo(f"{file} holds the splits {', '.join(splits)}; the recipe reads {picked}, --split takes another")
    typer.echo(f"{output}: {_summary(found)}. Next: batchchat check {shlex.quote(str(output))}")


def look(rows: Sequence[SourceRow | RowError], file: str) -> Findings:
    """What `rows` show. Raises UsageError where none of them can be used."""
    from batchchat.chats import RowError
    from batchchat.chats.formats import detect_format
    from batchchat.errors import BadRow, UsageError

    if not rows:
        raise UsageError(f"{file} holds no rows; name a file with at least one chat")
    good: list[tuple[SourceRow, str]] = []
    bad: dict[int, str] = {}
    for row in rows:
        if isinstance(row, RowError):
            bad[row.number] = f"{row.place}: {row.reason}"
            continue
        try:
            good.append((row, detect_format(row.data)))
        except BadRow as error:
            bad[row.number] = f"{row.place}: {error}"
    if not good:
        raise UsageError(f"no chat was found in {_first(len(rows))}; {bad[min(bad)]}")
    formats = {name for _, name in good}
    modes: tuple[Turns, ...] = ("scripted", "regenerate")
    refused = {
        mode: {row.number: reason for row, name in good if (reason := _refusal(row, name, mode))} for mode in modes
    }
    turns = min(modes, key=lambda mode: len(refused[mode]))
    bad |= refused[turns]
    return Findings(
        rows=len(rows),
        format=formats.pop() if len(formats) == 1 else None,
        columns=tuple(dict.fromkeys(str(column) for row, _ in good for column in row.data)),
        turns=turns,
        bad=len(bad),
        first_bad=bad[min(bad)] if bad else None,
    )


def draft(file: str, output: Path, found: Findings, split: str | None = None, splits: Sequence[str] = ()) -> str:
    """The text of the recipe."""
    from batchchat.recipe.rendering import EDITOR_LINE, commented_recipe
    from batchchat.recipe.schema import Recipe

    default = Recipe.model_validate({"source": {"path": file}})
    values: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9._-]+", "-", Path(file).name.partition(".")[0]).strip("-._")[:100] or "run",
        "source.path": file,
        **({} if split is None else {"source.split": split}),
        "source.format": found.format or "auto",
        "chat.turns": found.turns,
        "model.name": default.model.name,
        "generation.max_new_tokens": default.generation.max_new_tokens,
        "engine.max_batch_rows": default.engine.max_batch_rows,
        "sink.formats": list(default.sink.formats),
    }
    notes = {
        "source.path": f"Columns found: {', '.join(found.columns)}.",
        "source.format": f"{'Detected' if found.format else 'Several were detected'} in {_first(found.rows)}.",
    }
    if len(splits) > 1:
        notes["source.split"] = f"Splits found: {', '.join(splits)}."
    if found.turns == "regenerate":
        notes["chat.turns"] = "Most of the chats found end in an assistant turn."
    if (output.parent / "recipe.schema.json").is_file():
        editors = f"{EDITOR_LINE.removeprefix('# ')}recipe.schema.json"
    else:
        editors = "Let editors complete and check recipes: batchchat schema --output recipe.schema.json"
    head = [
        editors,
        f"Run it:           batchchat run {shlex.quote(str(output))}",
        f"Look before:      batchchat check {shlex.quote(str(output))}",
        "All the settings: batchchat schema --markdown",
        f"{file}: {_summary(found)}.",
        *([f"The first of the bad ones, {found.first_bad}"] if found.first_bad else []),
    ]
    return commented_recipe(values, SHOWN, notes, head)


def _refusal(row: SourceRow, format_: str, turns: Turns) -> str | None:
    """Why a row cannot become a chat, with its place; None where it can."""
    from batchchat.chats.formats import FORMATS, ReadOptions
    from batchchat.errors import BadRow

    try:
        FORMATS[format_].read(row, row.number, ReadOptions(turns=turns))
    except BadRow as error:
        return f"{row.place}: {error}"
    return None


def _summary(found: Findings) -> str:
    bad = f", {found.bad} of them bad" if found.bad else ""
    return f"looked at {_first(found.rows)}{bad}; format {found.format or 'differs'}; turns {found.turns}"


def _first(rows: int) -> str:
    return f"the first {rows} rows" if rows > 1 else "the first row"
