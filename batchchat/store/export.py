"""The ordered export: every answered chat in outputs.*, every failed one in errors.jsonl, each exactly once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from batchchat.chats import Chat
from batchchat.chats.conversation import Conversation
from batchchat.chats.formats import FORMATS, ReadOptions
from batchchat.chats.formats.columns import own_id
from batchchat.chats.formats.openai import failure, is_batch_line
from batchchat.chats.json_text import read_exact, read_row
from batchchat.plugins.tables import WRITERS
from batchchat.recipe import Recipe
from batchchat.store.damage import damaged
from batchchat.store.database import LAST, RunStore, StoredRow, TurnRecord
from batchchat.store.directory import RunDirectory, replacing
from batchchat.store.parts import Parts
from batchchat.store.writers import JSONL, Outputs, Writer

ReadChat = Callable[[StoredRow], Chat]


class Export:
    """Outputs and errors of a run. The whole of a file appears at once: it is written beside its name and renamed.

    `types` gives the Arrow types of the input's columns; `on_part` is told of parts that are there while the run goes
    on.
    """

    def __init__(
        self,
        store: RunStore,
        directory: RunDirectory,
        recipe: Recipe,
        read_chat: ReadChat,
        options: ReadOptions,
        types: Callable[[], Mapping[str, Any]],
        on_part: Callable[[Path], None] = lambda part: None,
    ):
        self._store = store
        self._directory = directory
        self._recipe = recipe
        self._read_chat = read_chat
        self._options = options
        self._types = types
        in_one = recipe.sink.shards is None and recipe.sink.every is None
        self._parts = None if in_one else Parts(store, directory, recipe, self._outputs, types, on_part)

    def advance(self) -> None:
        """Write the parts that are complete by now (`sink.every`)."""
        if self._parts is not None:
            self._parts.advance()

    def begin_anew(self) -> None:
        """Write all parts again, as one of them was changed since."""
        if self._parts is not None:
            self._parts.begin_anew()

    def finish(self) -> None:
        """Write everything, of a run whose rows are all done. What was exported in another form is removed."""
        sink = self._recipe.sink
        if self._parts is not None:
            self._parts.finish()
        for format_ in sink.formats:
            if self._parts is None:
                outputs = Outputs(lambda: self._outputs(0, LAST), self._types())
                _write(WRITERS[format_], self._directory.outputs(format_), outputs, sink.options_of(format_))
                shutil.rmtree(self._directory.parts(format_), ignore_errors=True)
            else:
                self._directory.outputs(format_).unlink(missing_ok=True)
        _write(JSONL, self._directory.errors, Outputs(self._errors, {}), None)

    def _outputs(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        for row in self._store.rows(first, last):
            yield from _output_rows(self._store, row, self._recipe, self._read_chat, self._options)

    def _errors(self) -> Iterator[dict[str, Any]]:
        for row in self._store.rows():
            yield from _error_rows(self._store, row, self._options)


def _write(writer: Writer, path: Path, outputs: Outputs, options: Any) -> int:
    with replacing(path) as file:
        return writer.write(file, outputs, options)


def _output_rows(
    store: RunStore, row: StoredRow, recipe: Recipe, read_chat: ReadChat, options: ReadOptions
) -> Iterator[dict[str, Any]]:
    failed = store.errors(row.index)
    if None in failed:
        return
    assert row.format is not None
    chat = read_chat(row)
    data = row.source.exact
    turns = store.turns(row.index)
    format_ = FORMATS[row.format]
    outputs: list[dict[str, Any]] = []
    for sample in range(row.samples):
        if sample in failed:
            continue
        written = turns.get(sample, [])
        told = conversation_of(chat, written)
        if not told.is_complete:
            raise damaged(store.path, f"answers of row {row.index} are gone")
        facts = {"sample": sample, "turns": [turn_facts(turn, chat, recipe.sink.timings) for turn in written]}
        further = {"model": recipe.model.name, "created": store.started}
        output = format_.write(data, told.as_chat(), told.answers, options, {**facts, **further})
        if chat.runs_tools and chat.tools and "messages" in output:
            output.setdefault("tools", [*chat.tools])  # what the calls are of, for whoever trains on the row
        ours: dict[str, Any] = {"id": chat.id, "index": row.index, **facts}
        if told.ended is not None:
            ours["ended"] = told.ended
        if "batchchat" in data:
            ours["previous"] = data["batchchat"]
        output["batchchat"] = ours
        outputs.append(output)
    if outputs and format_.join is not None:
        outputs = [format_.join(outputs)]
    yield from outputs


def turn_facts(turn: TurnRecord, chat: Chat, timings: bool) -> dict[str, Any]:
    """What stands of a turn in outputs.jsonl."""
    facts: dict[str, Any] = {
        "finish_reason": turn.finish_reason,
        "prompt_tokens": turn.prompt_tokens,
        "completion_tokens": turn.completion_tokens,
        **_said_apart(turn.record),
    }
    alone = not (chat.simulated or chat.runs_tools)  # then turns are answers to those of the row, one by one
    reference = chat.references[turn.turn] if alone and turn.turn < len(chat.references) else None
    if reference is not None:
        facts["reference"] = reference
    if timings:
        facts["seconds"] = {
            "queued": round(turn.started - turn.queued, 6),
            "working": round(turn.finished - turn.started, 6),
        }
    return facts


def _said_apart(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a turn's record says besides its message, which stands in the row; of a simulated user's, whose it is."""
    facts = {name: value for name, value in record.items() if name not in ("message", "ends")}
    role = record["message"]["role"]
    return facts if role == "assistant" else {"role": role, **facts}


def _error_rows(store: RunStore, row: StoredRow, options: ReadOptions) -> Iterator[dict[str, Any]]:
    failed = store.errors(row.index)
    if not failed:
        return
    turns = store.turns(row.index)
    data, sound = _as_read(row.raw)
    id_ = own_id(data, options) if row.id is None and isinstance(data, dict) else row.id
    for sample, (turn, reason) in failed.items():
        error: dict[str, Any] = {"id": id_, "index": row.index, "file": row.place.file, "line": row.place.line}
        if sample is not None:
            error |= {"sample": sample, "turn": turn}
        error["reason"] = reason
        answered = [written.record["message"] for written in turns.get(sample, [])] if sample is not None else []
        if answered:
            error["answered"] = answered
        if isinstance(data, dict) and is_batch_line(data):
            error |= failure(data, reason)
        error["row"] = data if sound else row.raw
        yield error


def raw_value(text: str) -> Any:
    """A row as it was read: its JSON value, or its text where the value would not say all of it."""
    data, sound = _as_read(text)
    return data if sound else text


def _as_read(raw: str) -> tuple[Any, bool]:
    """The value of a row's text as far as it has one, and whether the value says all that the text does."""
    try:
        data = read_exact(raw)
    except (ValueError, RecursionError):
        return None, False
    try:
        read_row(raw)
    except (ValueError, RecursionError):
        return data, False
    return data, True


def conversation_of(chat: Chat, written: Iterable[TurnRecord]) -> Conversation:
    """A sample of a chat as its stored turns have it."""
    return Conversation(chat, (turn.record for turn in written))


def answer_turns(written: Iterable[TurnRecord]) -> list[TurnRecord]:
    """Of stored turns, those that the model wrote as the assistant."""
    return [turn for turn in written if turn.record["message"]["role"] == "assistant"]
