"""Rows in ShareGPT's way: a list of `{"from", "value"}` turns, with tool calls as turns of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats.conversation import answers_in_place
from batchchat.chats.formats.calls import call_text, read_call_text, read_entry_calls
from batchchat.chats.formats.columns import first_turn, turns_column
from batchchat.chats.formats.entries import EntryStyle, whole_entry, with_turns
from batchchat.chats.formats.options import Facts, Format, ReadOptions, Whole
from batchchat.chats.formats.segments import build_chat, split, weave
from batchchat.chats.formats.values import as_json, check_encodable, check_text, further_keys, kind, optional_text
from batchchat.chats.types import Chat, Message, Role, SourceRow
from batchchat.errors import BadRow

COLUMNS = ("conversations", "conversation", "messages")
CALL_NAMES = ("function_call", "tool_call")
"""Assistant turns whose value is the JSON of one or several tool calls."""
ROLE_NAMES: Mapping[str, Role] = {
    "system": "system",
    "developer": "developer",
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bard", "bing", "assistant", "model", "bot", *CALL_NAMES), "assistant"),
    **dict.fromkeys(("function_response", "tool_response", "observation", "tool", "function"), "tool"),
}

_REASONING = "reasoning_content"
_OWN_KEYS = {"from", "value", _REASONING, "tool_calls", "function_call", "tool_call_id", "name"}

Row = Mapping[str, Any]


def matches(data: Row, options: ReadOptions) -> bool:
    first = first_turn(data, options, COLUMNS)
    return isinstance(first, Mapping) and "from" in first


def read(row: SourceRow, index: int, options: ReadOptions) -> Chat:
    return build_chat(row, index, options, _turns(row.data, options)[1])


def write(
    data: Row, chat: Chat, answers: Sequence[Message], options: ReadOptions, facts: Facts | None = None
) -> dict[str, Any]:
    """The list's own entries as they came, with each answer added under the names that the row uses. An answer that
    both says something and calls a tool becomes two entries, where the row's calls are entries of their own."""
    column, turns = _turns(data, options)
    entries = list(data[column])
    names = _answer_names(entries)
    where = split(turns, options)
    style = EntryStyle.of_calls(entries)
    added = [
        [entry for message in said for entry in _said(message, entries, names, style)]
        for said in answers_in_place(chat, answers)
    ]
    if where.prefill:
        start, answer = entries[-1], answers[-1]
        entries[-1] = {**start, "value": start["value"] + (answer.content or ""), **_reasoning(answer)}
        if start.get(_REASONING) is not None:
            entries[-1][_REASONING] = start[_REASONING] + (answer.reasoning or "")
        added[-1] = []
        if answer.tool_calls and style is not None:
            entries[-1]["tool_calls"] = style.calls(answer)
        elif answer.tool_calls:
            added[-1] = [{"from": names[1], "value": call_text(answer.tool_calls)}]
    return {**data, column: weave(entries, where, added)}


def apart(row: SourceRow, options: ReadOptions) -> Whole:
    column, messages = _turns(row.data, options)
    return Whole(tuple(messages), {name: value for name, value in row.exact.items() if name != column})


def together(whole: Whole) -> tuple[dict[str, Any], Sequence[str]]:
    return with_turns(whole.columns, {"conversations": [_whole_entry(message) for message in whole.messages]})


def _whole_entry(message: Message) -> dict[str, Any]:
    entry = whole_entry(message)
    return {"from": _WRITTEN_NAMES[entry.pop("role")], "value": entry.pop("content"), **entry}


_WRITTEN_NAMES = {
    "system": "system", "developer": "developer", "user": "human", "assistant": "gpt", "tool": "observation",
}  # fmt: skip


def _turns(data: Row, options: ReadOptions) -> tuple[str, list[Message]]:
    column = turns_column(data, options, COLUMNS)
    entries = data[column]
    if not isinstance(entries, list):
        raise BadRow(f"{column} is {kind(entries)}, not a list of turns")
    return column, [_read_turn(entry, f"{column}[{number}]") for number, entry in enumerate(entries)]


def _read_turn(entry: Any, where: str) -> Message:
    if not isinstance(entry, Mapping):
        raise BadRow(f"{where} is {kind(entry)}, not an object with from and value")
    name = entry.get("from")
    role = ROLE_NAMES.get(name) if isinstance(name, str) else None
    if role is None:
        given = repr(name) if "from" in entry else "absent"
        raise BadRow(f"{where}.from is {given}; it is one of {', '.join(ROLE_NAMES)}")
    extra = further_keys(entry, _OWN_KEYS)
    value = entry.get("value")
    calls = read_entry_calls(entry, where)
    if calls and role != "assistant":
        raise BadRow(f"{where} calls a tool, which only turns of the model do: it is from {name!r}")
    if name in CALL_NAMES and value is not None:
        calls = (*read_call_text(value, f"{where}.value"), *calls)
        return Message("assistant", None, tool_calls=calls, extra=extra)
    if role == "tool" and "value" in entry and not isinstance(value, str):
        check_encodable(value, f"{where}.value")
        value = as_json(value)
    reasoning = entry.get(_REASONING)
    return Message(
        role,
        None if value is None and calls else check_text(value, f"{where}.value"),
        reasoning=None if reasoning is None else check_text(reasoning, f"{where}.{_REASONING}"),
        tool_calls=calls,
        tool_call_id=optional_text(entry, "tool_call_id", where),
        name=optional_text(entry, "name", where),
        extra=extra,
    )


def _answer_names(entries: Sequence[Row]) -> tuple[str, str]:
    """What the row calls an assistant turn and a tool call."""
    names = [entry["from"] for entry in entries]
    said = next((name for name in names if ROLE_NAMES[name] == "assistant" and name not in CALL_NAMES), None)
    called = next((name for name in names if name in CALL_NAMES), CALL_NAMES[0])
    return said or ("assistant" if "user" in names else "gpt"), called


def _said(
    message: Message, entries: Sequence[Row], names: tuple[str, str], style: EntryStyle | None
) -> list[dict[str, Any]]:
    """The entries of an answer, or of what others said behind it."""
    if message.role == "assistant":
        return _entries(message, *names, style)
    used = (entry["from"] for entry in entries if ROLE_NAMES[entry["from"]] == message.role)
    beside = {name: value for name in ("tool_call_id", "name") if (value := getattr(message, name)) is not None}
    return [{"from": next(used, _WRITTEN_NAMES[message.role]), "value": message.content or "", **beside}]


def _entries(answer: Message, said: str, called: str, style: EntryStyle | None) -> list[dict[str, Any]]:
    if style is not None and answer.tool_calls:
        return [{"from": said, "value": answer.content or "", **_reasoning(answer), "tool_calls": style.calls(answer)}]
    entries: list[dict[str, Any]] = []
    if answer.content or not answer.tool_calls or answer.reasoning is not None:
        entries.append({"from": said, "value": answer.content or "", **_reasoning(answer)})
    if answer.tool_calls:
        entries.append({"from": called, "value": call_text(answer.tool_calls)})
    return entries


def _reasoning(answer: Message) -> dict[str, str]:
    return {} if answer.reasoning is None else {_REASONING: answer.reasoning}


SHAREGPT = Format("sharegpt", matches, read, write, apart=apart, together=together)
