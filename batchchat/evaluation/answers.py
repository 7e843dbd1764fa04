"""The answers that are scored: of a run, from its store, or of any tool, from a file of finished chats."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any, Protocol

from batchchat.chats import Chat, Message, RowError, SourceRow
from batchchat.chats.formats import FORMATS, ReadOptions, detect_format
from batchchat.chats.formats.columns import turns_column
from batchchat.chats.formats.messages import COLUMNS, read_message, read_messages
from batchchat.chats.formats.segments import answer_text, joined, split
from batchchat.chats.json_text import loose_text
from batchchat.errors import BadRow, UsageError
from batchchat.recipe import Recipe
from batchchat.sources import open_source
from batchchat.sources.from_recipe import read_options
from batchchat.store import RunStore, StoredRow
from batchchat.store.damage import damaged
from batchchat.store.export import answer_turns, conversation_of


@dataclass(frozen=True)
class Answered:
    """One sample of a chat with its answers.

    `chat` is None where the row could not become one. `finish_reasons[k]` belongs to `answers[k]`, None where it is
    not known. There are fewer answers than turns where the sample failed. `failure` is a row of a file that could not
    be read, which is in no score.
    """

    id: str
    index: int
    sample: int
    columns: Mapping[str, Any]
    chat: Chat | None
    answers: tuple[Message, ...]
    finish_reasons: tuple[str | None, ...]
    failure: RowError | None = None
    confidences: tuple[float | None, ...] = ()
    """By answer the geometric mean of its tokens' probabilities, where they were recorded."""

    @property
    def num_turns(self) -> int:
        """How many answers the chat asks for; 1 where that cannot be known."""
        return self.chat.num_turns if self.chat else 1

    def failed_at(self, turn: int) -> bool:
        """Whether the chat asks for an answer at this turn and has none."""
        return turn >= len(self.answers) and (self.chat is None or turn < self.num_turns)

    @cached_property
    def asked(self) -> str:
        """What the chat's users and tools say, as a digest: equal for two runs over the same input, whatever their
        system turns and answers are."""
        digest = blake2b(digest_size=8)
        for segment in self.chat.segments if self.chat else ():
            for message in segment:
                if message.role in ("user", "tool"):
                    digest.update(f"{message.role} {len(message.content or '')} {message.content}".encode())
        return digest.hexdigest()


class Answers(Protocol):
    """A set of answers that can be read in order, as often as is needed, and by chat."""

    name: str

    def __iter__(self) -> Iterator[Answered]: ...

    def find(self, chat_id: str, sample: int) -> Answered | None:
        """The answers to one chat, if they are here."""
        ...


class RunAnswers:
    """The answers of a finished run, in input order. Memory is bounded by a row."""

    def __init__(self, name: str, store: RunStore, recipe: Recipe):
        self.name = name
        self._store = store
        self._options = read_options(recipe, store.meta("tools"))

    def __iter__(self) -> Iterator[Answered]:
        for row in self._store.rows():
            yield from self._samples(row)

    def find(self, chat_id: str, sample: int) -> Answered | None:
        row = self._store.row_by_id(chat_id)
        return None if row is None else next((a for a in self._samples(row) if a.sample == sample), None)

    def _samples(self, row: StoredRow) -> Iterator[Answered]:
        if row.format is None:
            for sample in range(row.samples):
                yield Answered(row.id or f"row-{row.number}", row.index, sample, {}, None, (), ())
            return
        data = row.data
        chat = row.chat(self._options)
        written, failed = self._store.turns(row.index), self._store.errors(row.index)
        for sample in range(row.samples):
            told = conversation_of(chat, written.get(sample, []))
            if not told.is_complete and not failed.keys() & {None, sample}:
                raise damaged(self._store.path, f"answers of row {row.index} are gone")
            turns, answers = answer_turns(written.get(sample, [])), list(told.answers)
            if chat.prefill and told.is_complete:
                answers[-1] = joined(chat.segments[-1][-1], answers[-1])
            reasons = tuple(turn.finish_reason for turn in turns)
            sure = tuple(confidence(turn.record.get("logprobs")) for turn in turns)
            as_told = told.as_chat()
            yield Answered(chat.id, row.index, sample, data, as_told, tuple(answers), reasons, confidences=sure)


class FileAnswers:
    """The answers in a file of finished chats: every assistant turn behind a user turn is one.

    A row has `messages` (or ShareGPT's `conversations`); the other columns serve as references. A chat with several
    samples has one row for each, numbered in `batchchat.sample`, as in a run's own outputs.
    """

    def __init__(self, path: str, recipe: Recipe):
        self.name = path
        columns = recipe.source.columns.model_dump(exclude_none=True, exclude={"prompt"})
        self._options = ReadOptions(turns="regenerate", columns=columns)
        self._by_key: dict[tuple[str, int], Answered] | None = None

    def __iter__(self) -> Iterator[Answered]:
        with open_source([self.name]) as source, _Places() as places:
            for index, item in enumerate(source.rows()):
                answered = self._read(index, item)
                earlier = places.add(answered.id, answered.sample, str(item.place))
                if earlier is not None:
                    raise UsageError(
                        f"{item.place} has the id {answered.id!r}, and so has {earlier}; give every chat its own id, "
                        "or number its answers in batchchat.sample"
                    )
                yield answered

    def find(self, chat_id: str, sample: int) -> Answered | None:
        if self._by_key is None:
            self._by_key = {(answered.id, answered.sample): answered for answered in self}
        return self._by_key.get((chat_id, sample))

    def _read(self, index: int, item: SourceRow | RowError) -> Answered:
        if isinstance(item, RowError):
            return _failed(index, item)
        ours = item.data.get("batchchat")
        facts: Mapping[str, Any] = ours if isinstance(ours, Mapping) else {}
        sample = facts.get("sample", 0)
        try:
            chat, answers = _finished_chat(item, index, self._options)
        except BadRow as error:
            own = item.data.get("id")
            raw = loose_text(item.data) if item.text is None else item.text
            return _failed(
                index, RowError(item.number, item.place, str(error), raw, own if isinstance(own, str) else None)
            )
        turns = facts.get("turns")
        if isinstance(turns, list):  # those of others are no answers
            turns = [turn for turn in turns if isinstance(turn, Mapping) and "role" not in turn]
        reasons: Sequence[str | None] = [None] * len(answers)
        if isinstance(turns, list) and len(turns) == len(answers):
            reasons = [turn.get("finish_reason") for turn in turns]
        if isinstance(facts.get("id"), str):  # a run's own outputs say what it called the chat
            chat = replace(chat, id=facts["id"])
        return Answered(chat.id, index, sample, item.data, chat, answers, tuple(reasons))


def confidence(logprobs: Sequence[Mapping[str, Any]] | None) -> float | None:
    """The geometric mean of the probabilities of an answer's tokens; None where they are not known."""
    if not logprobs:
        return None
    known = [step["logprob"] for step in logprobs]
    return None if None in known else min(1.0, math.exp(math.fsum(known) / len(known)))


def _failed(index: int, error: RowError) -> Answered:
    return Answered(error.id or f"row-{error.number}", index, 0, {}, None, (), (), error)


class _Places:
    """Where each id of a file stands, in a database on the disk: a file may be larger than the memory."""

    def __enter__(self) -> _Places:
        self._database = sqlite3.connect("")  # a file that is gone when it is closed
        self._database.execute(
            "CREATE TABLE places (id BLOB, sample INTEGER, place TEXT, PRIMARY KEY (id, sample)) WITHOUT ROWID"
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def add(self, chat_id: str, sample: int, place: str) -> str | None:
        """Keep the place of an id; the earlier place where it has one."""
        key = (chat_id.encode("utf-8", "surrogatepass"), sample)
        try:
            self._database.execute("INSERT INTO places VALUES (?, ?, ?)", (*key, place))
        except sqlite3.IntegrityError:
            found = self._database.execute("SELECT place FROM places WHERE id = ? AND sample = ?", key).fetchone()
            return str(found[0])
        return None


def _finished_chat(row: SourceRow, index: int, options: ReadOptions) -> tuple[Chat, tuple[Message, ...]]:
    """The chat with its answers taken out, and the answers; an unanswered turn before the last is an empty answer.
    Raises BadRow for a row that is no chat."""
    format_ = detect_format(row.data, options)
    if format_ not in ("messages", "sharegpt"):
        raise BadRow(f"a row needs messages that end in an assistant turn, and this one has the format {format_}")
    if format_ == "messages":
        column = turns_column(row.data, options, COLUMNS)
        row = replace(row, data={**row.data, column: readable_turns(row.data[column])})
    chat = FORMATS[format_].read(row, index, options)
    if format_ == "messages":
        answers = _assistant_turns(row, options)
    else:
        answers = [None if text is None else Message("assistant", text) for text in chat.references]
    while answers and answers[-1] is None:
        answers.pop()
    return replace(chat, references=()), tuple(answer or Message("assistant", "") for answer in answers)


def readable_turns(entries: Any) -> Any:
    """The turns of a chat in which what a model wrote wrong is an answer all the same: an assistant turn without text
    is an empty one, and a call that cannot be read is kept apart as it is."""
    if not isinstance(entries, list):
        return entries
    return [_readable_turn(entry) for entry in entries]


def _readable_turn(entry: Any) -> Any:
    if not isinstance(entry, Mapping) or entry.get("role") != "assistant":
        return entry
    try:
        read_message(entry, "turn")
        return entry
    except BadRow:
        pass
    content = entry.get("content")
    rest = {key: value for key, value in entry.items() if key not in ("tool_calls", "function_call")}
    rest["content"] = "" if content is None else content
    calls = entry.get("tool_calls") or entry.get("function_call")
    return rest if not calls else {**rest, _UNREADABLE: calls if isinstance(calls, list) else [calls]}


_UNREADABLE = "unreadable_calls"


def _with_calls(message: Message) -> Message:
    """The turn with its unreadable calls, whose arguments stay the text that they are."""
    calls = message.extra.get(_UNREADABLE)
    if calls is None:
        return message
    bodies = [call.get("function", call) if isinstance(call, Mapping) else {"arguments": call} for call in calls]
    named = [body if isinstance(body, Mapping) else {"arguments": body} for body in bodies]
    kept = [{"name": str(body.get("name", "")), "arguments": body.get("arguments")} for body in named]
    return replace(message, extra={}, tool_calls=tuple({"type": "function", "function": call} for call in kept))


def _assistant_turns(row: SourceRow, options: ReadOptions) -> list[Message | None]:
    """Per turn the assistant message that stands there, whole; several in a row become one."""
    messages = read_messages(row.data[turns_column(row.data, options, COLUMNS)], "messages")
    found = split(messages, options)
    turns: list[list[Message]] = [[] for _ in found.cuts]
    for place, turn in found.replaced.items():
        turns[turn].append(_with_calls(messages[place]))
    return [_as_one(group) for group in turns]


def _as_one(group: Sequence[Message]) -> Message | None:
    if len(group) <= 1:
        return group[0] if group else None
    calls = tuple(call for message in group for call in message.tool_calls)
    texts = [answer_text(replace(message, tool_calls=())) for message in group]
    return Message("assistant", "\n".join(text for text in texts if text), tool_calls=calls)
