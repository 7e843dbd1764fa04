"""Rows with scripted turns: a list of questions that are asked one after the other (MT-Bench)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats.formats.columns import first_turn, turns_column
from batchchat.chats.formats.entries import whole_entry, with_turns
from batchchat.chats.formats.messages import read_message
from batchchat.chats.formats.options import Facts, Format, ReadOptions, Whole
from batchchat.chats.formats.prompt import with_conversation
from batchchat.chats.formats.segments import build_chat, conversation
from batchchat.chats.formats.values import check_text, kind
from batchchat.chats.types import Chat, Message, SourceRow
from batchchat.errors import BadRow

COLUMNS = ("turns",)

Row = Mapping[str, Any]


def matches(data: Row, options: ReadOptions) -> bool:
    first = first_turn(data, options, COLUMNS)
    return isinstance(first, str) or (isinstance(first, Mapping) and "content" in first)


def read(row: SourceRow, index: int, options: ReadOptions) -> Chat:
    """A string is a user turn, and so is an object without a role."""
    return build_chat(row, index, options, _messages(row.data, options)[1])


def write(
    data: Row, chat: Chat, answers: Sequence[Message], options: ReadOptions, facts: Facts | None = None
) -> dict[str, Any]:
    """The row and the whole conversation in a new column `messages` (`batchchat_messages` where the row has one)."""
    return with_conversation(data, conversation(chat, answers))


def apart(row: SourceRow, options: ReadOptions) -> Whole:
    column, messages = _messages(row.data, options)
    return Whole(tuple(messages), {name: value for name, value in row.exact.items() if name != column})


def together(whole: Whole) -> tuple[dict[str, Any], Sequence[str]]:
    """Texts where every turn is a question without more, else objects."""
    entries = [whole_entry(message) for message in whole.messages]
    plain = all(entry.keys() == {"role", "content"} and entry["role"] == "user" for entry in entries)
    return with_turns(whole.columns, {"turns": [entry["content"] for entry in entries] if plain else entries})


def _messages(data: Row, options: ReadOptions) -> tuple[str, list[Message]]:
    column = turns_column(data, options, COLUMNS)
    turns = data[column]
    if not isinstance(turns, list):
        raise BadRow(f"{column} is {kind(turns)}, not a list of turns")
    return column, [_read_turn(turn, f"{column}[{number}]") for number, turn in enumerate(turns)]


def _read_turn(turn: Any, where: str) -> Message:
    if isinstance(turn, Mapping):
        return read_message(turn if turn.get("role") is not None else {**turn, "role": "user"}, where)
    return Message("user", check_text(turn, where))


TURNS = Format("turns", matches, read, write, apart=apart, together=together)
