"""New `{"role", "content", …}` entries, written the way the other entries of the row are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchchat.chats.formats.calls import Call, call_text, with_argument_text
from batchchat.chats.formats.options import Whole
from batchchat.chats.types import Message, TextArguments
from batchchat.errors import BadRow

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class EntryStyle:
    """How a row writes its turns.

    `part_key`: None where contents are plain strings, else the key ("text" or "value") that holds a part's text. With
    "value", reasoning and tool calls are parts too. `argument_text`: tool call arguments are JSON text, as in
    OpenAI's API, not objects.
    """

    part_key: str | None = None
    argument_text: bool = False
    reasoning_key: str = "reasoning_content"

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> EntryStyle:
        """The style of a row's entries; its assistant turns, if there are any, say whether contents are lists."""
        written = [entry for entry in entries if isinstance(entry.get("content"), str | list)]
        models = [entry["content"] for entry in written if entry["role"] == "assistant"] or [
            entry["content"] for entry in written
        ]
        in_parts = bool(models) and isinstance(models[-1], list)
        keys = [key for part in _parts(entries) for key in ("value", "text") if part.get(key) is not None]
        reasoning = [key for entry in entries for key in ("reasoning", "thinking") if entry.get(key) is not None]
        return cls(
            part_key=(keys or ["text"])[0] if in_parts else None,
            argument_text=any(isinstance(arguments, str) for arguments in _arguments(entries)),
            reasoning_key=(reasoning or ["reasoning_content"])[0],
        )

    @classmethod
    def of_calls(cls, entries: Sequence[Entry]) -> EntryStyle | None:
        """How a row writes calls beside the text of its turns; None where it has none there."""
        if not any(entry.get("tool_calls") for entry in entries):
            return None
        return cls(argument_text=any(isinstance(arguments, str) for arguments in _arguments(entries)))

    def calls(self, answer: Message) -> list[dict[str, Any]]:
        """The calls of an answer as the row writes them."""
        return with_argument_text(answer.tool_calls) if self.argument_text else [dict(c) for c in answer.tool_calls]


def whole_entry(message: Message) -> dict[str, Any]:
    """A turn as it came, arguments of calls as text where they came so."""
    entry = message.as_dict()
    if message.tool_calls:
        entry["tool_calls"] = [_as_it_came(call) for call in message.tool_calls]
    return entry


def _as_it_came(call: Call) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    if not isinstance(arguments, TextArguments):
        return dict(call)
    return {**call, "function": {**call["function"], "arguments": arguments.text}}


def with_turns(columns: Mapping[str, Any], turns: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The columns and those that hold turns; of two of one name the second is kept, and the first is lost."""
    return {**columns, **turns}, [f"the column {name}, whose name holds turns" for name in turns if name in columns]


def plain_turns(whole: Whole, name: str) -> tuple[dict[str, str], list[Message], list[str]]:
    """For formats that hold texts alone: a first system turn as a column, the turns behind it, and what these hold
    besides. Raises BadRow for turns that the format called `name` has no place for."""
    messages, system = list(whole.messages), dict[str, str]()
    if messages and messages[0].role in ("system", "developer"):
        system["system"] = messages.pop(0).content or ""
    lost = []
    if system and whole.messages[0].role == "developer":
        lost.append("the role developer, which is system now")
    for message in messages:
        if message.role not in ("user", "assistant"):
            raise BadRow(f"{name} has no place for a {message.role} turn{' behind the first' if system else ''}")
        if message.tool_calls:
            raise BadRow(f"{name} has no place for tool calls")
        lost += [f"{what} of turns" for what, value in _beside(message) if value]
    return system, messages, lost


def _beside(message: Message) -> Iterator[tuple[str, Any]]:
    yield "the reasoning", message.reasoning
    yield "the name", message.name
    yield "further keys", message.extra


def new_entry(message: Message, style: EntryStyle) -> dict[str, Any]:
    """The entry of one answer, or of what was said behind it."""
    if message.role == "tool":  # results of tools are texts in every style
        return message.as_dict()
    return {"role": message.role, "content": _content(message, style), **_beside_content(message, style)}


def continued_entry(start: Entry, answer: Message, style: EntryStyle) -> dict[str, Any]:
    """An assistant entry of the row with the answer that continues it: its other keys stay as they are."""
    content = start["content"]
    if isinstance(content, list):
        content = _continued_parts(content, answer, style)
    else:
        content = content + (answer.content or "")
    beside = _beside_content(answer, style)
    key = style.reasoning_key
    if start.get(key) is not None and key in beside:
        beside[key] = start[key] + beside[key]
    return {**start, "content": content, **beside}


def _continued_parts(parts: list[dict[str, Any]], answer: Message, style: EntryStyle) -> list[dict[str, Any]]:
    last = max(place for place, part in enumerate(parts) if part["type"] == "text")
    key = "value" if parts[last].get("text") is None else "text"
    text = {**parts[last], key: parts[last][key] + (answer.content or "")}
    added = _content(Message("assistant", None, answer.reasoning, answer.tool_calls), style)
    return [*parts[:last], text, *parts[last + 1 :], *(part for part in added if part["type"] != "text")]


def _content(answer: Message, style: EntryStyle) -> Any:
    if style.part_key is None:
        return answer.content
    parts: list[dict[str, Any]] = []
    if style.part_key == "value" and answer.reasoning is not None:
        parts.append({"type": "reasoning", "value": answer.reasoning})
    if answer.content or not answer.tool_calls:
        parts.append({"type": "text", style.part_key: answer.content or ""})
    if style.part_key == "value":
        parts.extend(_call_parts(answer.tool_calls))
    return parts


def _beside_content(answer: Message, style: EntryStyle) -> dict[str, Any]:
    """Reasoning and tool calls as keys of the entry, where they are not parts of its content."""
    if style.part_key == "value":
        return {}
    beside: dict[str, Any] = {}
    if answer.reasoning is not None:
        beside[style.reasoning_key] = answer.reasoning
    if answer.tool_calls:
        beside["tool_calls"] = style.calls(answer)
    return beside


def _call_parts(calls: Sequence[Call]) -> list[dict[str, Any]]:
    return [{"type": "tool_call", "value": call_text([call])} for call in calls]


def _parts(entries: Sequence[Entry]) -> Iterator[Mapping[str, Any]]:
    for entry in entries:
        if isinstance(entry.get("content"), list) and entry["role"] != "tool":
            yield from (part for part in entry["content"] if part.get("type") in ("text", "reasoning"))


def _arguments(entries: Sequence[Entry]) -> Iterator[Any]:
    for entry in entries:
        for call in entry.get("tool_calls") or ():
            function = call.get("function") or call
            yield function.get("arguments")
