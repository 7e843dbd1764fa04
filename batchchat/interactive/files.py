"""Conversations in files: rows that are saved, loaded, and answered again by a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from batchchat.chats import Chat, SourceRow
from batchchat.chats.formats import FORMATS, ReadOptions, detect_format
from batchchat.errors import BadRow, UsageError
from batchchat.interactive.conversation import Conversation, plain
from batchchat.recipe import Recipe
from batchchat.recipe.dumping import to_yaml
from batchchat.sources import open_source

_SECTIONS = ("model", "chat", "generation", "engine")


def save(conversation: Conversation, recipe: Recipe, name: str) -> Path:
    """Write the whole conversation, answers included, and the settings as one JSONL row that `load` reads. An empty
    `name` stands for a new file in the folder `chats`."""
    path = _path(name or f"chats/{datetime.now():%Y-%m-%d_%H-%M-%S}.jsonl")
    row: dict[str, Any] = {
        "id": path.stem,
        "model": recipe.model.name,
        "generation": recipe.generation.model_dump(mode="json", exclude_unset=True),
        "messages": [plain(message) for message in conversation.messages],
    }
    if conversation.tools:
        row["tools"] = [dict(tool) for tool in conversation.tools]
    _write(path, _line(row))
    return path


def load(name: str, system: str | None) -> Chat:
    """The chat of a row: `FILE`, or `FILE:LINE` for another than the first. Any file and row format of a run will do.

    The chat's settings are the row's own. With `prefill` nothing in it waits for an answer. Raises UsageError where
    there is no such row, and BadRow where the row is no chat.
    """
    file, line = name, None
    head, colon, tail = name.rpartition(":")
    if colon and tail.isdecimal() and not Path(name).exists():
        file, line = head, int(tail)
    with open_source([str(Path(file).expanduser())]) as source:
        for row in source.rows():
            if line is not None and row.place.line != line:
                continue
            if not isinstance(row, SourceRow):
                raise BadRow(f"{row.place}: {row.reason}")
            options = ReadOptions(turns="scripted", prefill=True, system=system)
            try:
                return FORMATS[detect_format(row.data, options)].read(row, 0, options)
            except BadRow as error:
                raise BadRow(f"{row.place}: {error}") from error
    missing = "holds no rows" if line is None else f"has no row at line {line}"
    raise UsageError(f"{file} {missing}; name a file with a conversation, as FILE or FILE:LINE")


def export(conversation: Conversation, name: str) -> list[Path]:
    """Write what makes a run write the last answer again: `NAME.jsonl` gets the row alone, `NAME.yaml` the recipe, and
    the row beside it. Raises UsageError where no run would write that answer."""
    path = _path(name)
    if path.suffix not in (".jsonl", ".yaml"):
        raise UsageError(f"{name} is neither a row nor a recipe; type !export NAME.jsonl or !export NAME.yaml")
    row = conversation.row()
    if row is None:
        raise UsageError(
            "the last answer was stopped or came from a file, or there is none, so no run would write it; ask, or "
            "type !retry, then !export again"
        )
    origin = conversation.origins[-1]
    assert origin is not None, "a conversation with a row has an origin"
    settings = origin.recipe.generation.model_dump(mode="json", exclude_none=True)
    data = path.with_suffix(".jsonl")
    files = {data: _line({"id": row["id"], "generation": settings, **row})}
    if path.suffix == ".yaml":
        files = {path: _recipe_text(origin.recipe, path, data), **files}
    _refuse_existing(list(files))
    for file, text in files.items():
        _write(file, text)
    return list(files)


def _recipe_text(recipe: Recipe, path: Path, data: Path) -> str:
    """The origin's recipe over one row."""
    sections: Mapping[str, Any] = recipe.model_dump(mode="json", exclude_unset=True, include=set(_SECTIONS))
    head = {"name": path.stem, "source": {"path": str(data), "format": "messages"}}
    text = to_yaml({**head, **sections})
    return f"# Writes the last answer of a chat again:\n#   batchchat run {path}\n{text}"


def _path(name: str) -> Path:
    return Path(name).expanduser()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def _refuse_existing(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} exists already; name another file")


def _write(path: Path, text: str) -> None:
    """A new file: none is overwritten."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise UsageError(f"{path} exists already; name another file") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be written ({error}); name another file") from error
