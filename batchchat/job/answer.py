"""Chats from memory: answered as a file of them would be."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchchat.chats.json_text import json_text
from batchchat.errors import UsageError
from batchchat.job.finished import RunResult
from batchchat.job.run import OwnEngine, run
from batchchat.recipe import load_recipe, recipe_from_mapping
from batchchat.reporting.reading import read_run_report
from batchchat.store import RunDirectory
from batchchat.store.directory import replacing

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Chat = str | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A question, a row as it would stand in a file, or the messages of a conversation."""


def answer(
    chats: Iterable[Chat],
    *,
    model: str | Mapping[str, Any] | PreTrainedModel = "builtin:tiny-chat",
    tokenizer: PreTrainedTokenizerBase | None = None,
    engine: OwnEngine | str | Mapping[str, Any] | None = None,
    restart: bool = False,
    quiet: bool = True,
    **sections: Any,
) -> RunResult:
    """Answer chats that are in memory. The other arguments are parts of a recipe: `name`, `generation`, `scoring`, ….

    The chats are written beside the run directory, as NAME.chats.jsonl, so that an interrupted call goes on where it
    stopped and everything about the run lies on the disk. `model` is a name, a section of the recipe, or a model that
    you have loaded, with its `tokenizer`; `engine` is a kind, a section, an engine of your own, or a callable that
    makes one (see `run`). Raises what `run` raises, and UsageError for what is no chat.
    """
    source = dict(sections.pop("source", {}))
    if "path" in source:
        raise UsageError("answer() takes its chats from memory; leave out source.path, or use run()")
    recipe: dict[str, Any] = dict(sections)
    loaded, own = None, None
    if isinstance(model, str):
        recipe["model"] = {"name": model}
    elif isinstance(model, Mapping):
        recipe["model"] = dict(model)
    else:
        loaded = model
    if isinstance(engine, str):
        recipe["engine"] = {"kind": engine}
    elif isinstance(engine, Mapping):
        recipe["engine"] = dict(engine)
    else:
        own = engine
    place = recipe_from_mapping({**recipe, "source": {**source, "path": "chats"}}).run_directory
    path = place.with_name(f"{place.name}.chats.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        for number, chat in enumerate(chats):
            file.write(json_text(_row(number, chat)).encode("utf-8") + b"\n")
    whole = recipe_from_mapping({**recipe, "source": {**source, "path": f"jsonl:{path}"}})
    return run(whole, restart=restart, quiet=quiet, engine=own, model=loaded, tokenizer=tokenizer)


def load_result(directory: str | Path) -> RunResult:
    """The result of a run that is finished, from its directory. Raises UsageError where there is none."""
    place = RunDirectory(Path(directory).expanduser())
    if not (place.report_json.exists() and place.recipe.exists()):
        raise UsageError(f"{directory} holds no finished run; finish it with: batchchat run {place.recipe}")
    return RunResult.of(read_run_report(place.report_json), place, load_recipe(place.recipe))


def _row(number: int, chat: Chat) -> Mapping[str, Any]:
    if isinstance(chat, str):
        return {"messages": [{"role": "user", "content": chat}]}
    if isinstance(chat, Mapping):
        return chat
    if isinstance(chat, Sequence):
        messages = [message for message in chat if isinstance(message, Mapping)]
        if len(messages) == len(chat):
            return {"messages": messages}
    raise UsageError(f"chat {number} is neither a text, a row nor a list of messages, but {type(chat).__name__}")
