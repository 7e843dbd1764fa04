"""Rows with a list of `{"role", "content", …}` turns, as chat APIs and most chat data sets have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats.conversation import answers_in_place
from batchchat.chats.formats.calls import Call, read_call_text, read_entry_calls
from batchchat.chats.formats.columns import first_turn, turns_column
from batchchat.chats.formats.entries import EntryStyle, continued_entry, new_entry, whole_entry, with_turns
from batchchat.chats.formats.options import Facts, Format, ReadOptions, Whole
from batchchat.chats.formats.segments import build_chat, split, weave
from batchchat.chats.formats.values import as_json, check_encodable, check_text, further_keys, kind, optional_text
from batchchat.chats.types import ROLES, Chat, Message, Role, SourceRow
from batchchat.errors import BadRow

COLUMNS = ("messages", "conversation", "conversations", "prompt")
ROLE_NAMES: Mapping[str, Role] = {**{role: role for role in ROLES}, "function": "tool"}
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")

_OWN_KEYS = {"role", "content", *REASONING_KEYS, "tool_calls", "function_call", "tool_call_id", "name"}
_MEDIA = {"image", "image_url", "input_image", "audio", "audio_url", "input_audio", "video", "video_url", "file"}

Row = Mapping[str, Any]


def matches(data: Row, options: ReadOptions) -> bool:
    first = first_turn(data, options, COLUMNS)
    return isinstance(first, Mapping) and "role" in first


def read(row: SourceRow, index: int, options: ReadOptions) -> Chat:
    return build_chat(row, index, options, _messages(row.data, options)[1])


def write(
    data: Row, chat: Chat, answers: Sequence[Message], options: ReadOptions, facts: Facts | None = None
) -> dict[str, Any]:
    """The list's own entries as they came, with one entry per answer, written as the row writes its turns."""
    column, messages = _messages(data, options)
    entries = list(data[column])
    style = EntryStyle.of(entries)
    where = split(messages, options)
    added = [[new_entry(message, style) for message in said] for said in answers_in_place(chat, answers)]
    if where.prefill:
        added[-1] = []
        entries[-1] = continued_entry(entries[-1], answers[-1], style)
    return {**data, column: weave(entries, where, added)}


def _messages(data: Row, options: ReadOptions) -> tuple[str, list[Message]]:
    column = turns_column(data, options, COLUMNS)
    return column, read_messages(data[column], column)


def read_messages(entries: Any, column: str) -> list[Message]:
    """The turns of a list of entries, one each. `column` is its name for messages. Raises BadRow."""
    if not isinstance(entries, list):
        raise BadRow(f"{column} is {kind(entries)}, not a list of turns")
    return [read_message(entry, f"{column}[{number}]") for number, entry in enumerate(entries)]


def read_message(entry: Any, where: str) -> Message:
    """One turn. Keys that are null are absent; keys that are no part of a turn are kept in `extra`."""
    if not isinstance(entry, Mapping):
        raise BadRow(f"{where} is {kind(entry)}, not an object with role and content")
    role = ROLE_NAMES.get(entry["role"]) if isinstance(entry.get("role"), str) else None
    if role is None:
        given = repr(entry["role"]) if "role" in entry else "absent"
        raise BadRow(f"{where}.role is {given}; it is one of {', '.join(ROLE_NAMES)}")
    content = entry.get("content")
    reasoning = _reasoning(entry, where)
    calls = read_entry_calls(entry, where)
    if role == "tool":
        content = _tool_result(content, where)
    elif isinstance(content, list):
        content, part_reasoning, part_calls = _read_parts(content, f"{where}.content")
        reasoning = part_reasoning if reasoning is None else reasoning
        calls = (*calls, *part_calls)
    if content is None and not (role == "assistant" and calls):
        raise BadRow(f"{where}.content is {'null' if 'content' in entry else 'absent'}: a turn needs a text")
    if content is not None:
        check_text(content, f"{where}.content")
    return Message(
        role,
        content,
        reasoning=reasoning,
        tool_calls=calls,
        tool_call_id=optional_text(entry, "tool_call_id", where),
        name=optional_text(entry, "name", where),
        extra=further_keys(entry, _OWN_KEYS),
    )


def apart(row: SourceRow, options: ReadOptions) -> Whole:
    column, messages = _messages(row.data, options)
    lists = any(isinstance(entry.get("content"), list) and entry.get("role") != "tool" for entry in row.data[column])
    lost = ("parts of contents, which are one text now",) if lists else ()
    return Whole(tuple(messages), {name: value for name, value in row.exact.items() if name != column}, lost)


def together(whole: Whole) -> tuple[dict[str, Any], Sequence[str]]:
    return with_turns(whole.columns, {"messages": [whole_entry(message) for message in whole.messages]})


def _reasoning(entry: Row, where: str) -> str | None:
    for key in REASONING_KEYS:
        if entry.get(key) is not None:
            return check_text(entry[key], f"{where}.{key}")
    return None


def _read_parts(parts: list[Any], where: str) -> tuple[str | None, str | None, tuple[Call, ...]]:
    """Text, reasoning and tool calls of a content that is a list of parts; texts are joined as they are. The text is
    None where there is no text part."""
    texts: list[str] = []
    reasonings: list[str] = []
    calls: list[Call] = []
    for number, part in enumerate(parts):
        here = f"{where}[{number}]"
        if not isinstance(part, Mapping):
            raise BadRow(f"{here} is {kind(part)}, not an object with a type")
        value = part.get("text") if part.get("text") is not None else part.get("value")
        match part.get("type"):
            case "text":
                texts.append(check_text(value, here))
            case "reasoning":
                reasonings.append(check_text(value, here))
            case "tool_call":
                calls.extend(read_call_text(value, here))
            case other:
                raise BadRow(f"{here} is a part of type {other!r}: only text, reasoning and tool_call are understood")
    return "".join(texts) if texts else None, "".join(reasonings) if reasonings else None, tuple(calls)


def _tool_result(content: Any, where: str) -> str:
    """A tool's result is any JSON value: a text stays, text parts are joined, everything else becomes JSON text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content and all(isinstance(part, Mapping) for part in content):
        kinds = {part.get("type") for part in content if isinstance(part.get("type"), str)}
        if kinds == {"text"} or kinds & _MEDIA:
            return _read_parts(content, f"{where}.content")[0] or ""
    check_encodable(content, f"{where}.content")
    return as_json(content)


MESSAGES = Format("messages", matches, read, write, apart=apart, together=together)
