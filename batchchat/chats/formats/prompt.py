"""Rows with one question each, in a column of its own or made from several by a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats.formats.columns import column_for, free_column, listing, require_column
from batchchat.chats.formats.entries import plain_turns, with_turns
from batchchat.chats.formats.options import Facts, Format, ReadOptions, Whole, parse_template
from batchchat.chats.formats.segments import build_chat, conversation
from batchchat.chats.formats.values import as_json, check_text
from batchchat.chats.types import Chat, Message, SourceRow
from batchchat.errors import BadRow

COLUMNS = ("prompt", "question", "instruction", "input", "text", "problem", "query")

Row = Mapping[str, Any]


def matches(data: Row, options: ReadOptions) -> bool:
    if options.templates:
        return True
    column = column_for(data, options, "prompt", COLUMNS)
    return column is not None and isinstance(data[column], str)


def read(row: SourceRow, index: int, options: ReadOptions) -> Chat:
    if options.templates:
        text = _filled(row, options)
    else:
        column = require_column(row.data, options, "prompt", COLUMNS)
        text = check_text(row.data[column], f"column {column}")
    return build_chat(row, index, options, [Message("user", text)])


def apart(row: SourceRow, options: ReadOptions) -> Whole:
    """One question; a question that is made by a template leaves the columns as they are."""
    if options.templates:
        return Whole((Message("user", _filled(row, options)),), row.exact)
    column = require_column(row.data, options, "prompt", COLUMNS)
    question = Message("user", check_text(row.data[column], f"column {column}"))
    return Whole((question,), {name: value for name, value in row.exact.items() if name != column})


def together(whole: Whole) -> tuple[dict[str, Any], Sequence[str]]:
    """A question and the system turn before it. An answer behind it becomes the reference."""
    system, messages, lost = plain_turns(whole, "prompt")
    roles = [message.role for message in messages]
    if roles not in (["user"], ["user", "assistant"]):
        raise BadRow(f"prompt has a place for one question and no more; the chat has {len(messages)} turns")
    turns: dict[str, Any] = {"prompt": messages[0].content, **system}
    if len(messages) == 2:
        turns["answer"] = messages[1].content
        lost.append("the answer's place among the turns: it is the column answer now")
    row, clashes = with_turns(whole.columns, turns)
    return row, [*lost, *clashes]


def fill(
    template: str,
    row: SourceRow,
    setting: str = "source.prompt_template",
    known: Mapping[str, str] | None = None,
) -> str:
    """The template with the row's values: texts as they are, everything else as JSON. Texts that are `known` by their
    placeholders come first; `setting` is where the template comes from. Raises BadRow."""
    data, parts = row.data, list[str]()
    for literal, name in parse_template(template, setting):
        parts.append(literal)
        if name is None:
            continue
        if known is not None and name in known:
            parts.append(known[name])
            continue
        if name not in data:
            raise BadRow(f"{setting} asks for column {name}; the row's columns are {listing(data)}")
        value = data[name]
        if value is None:
            raise BadRow(f"{setting} asks for column {name}, which is null in this row")
        parts.append(check_text(value if isinstance(value, str) else as_json(row.exact[name]), f"column {name}"))
    return "".join(parts)


def _filled(row: SourceRow, options: ReadOptions) -> str:
    """The row's user turn by its template. `{prompt}` is the column that plays this role, where none has this name."""
    template = options.templates[row.number % len(options.templates)]
    if options.prompt_template is not None:
        return fill(template, row)
    known: dict[str, str] = {}
    column = column_for(row.data, options, "prompt", COLUMNS)
    if column is not None and "prompt" not in row.data:
        known["prompt"] = check_text(row.data[column], f"column {column}")
    return fill(template, row, "source.prompt_files", known)


def write(
    data: Row, chat: Chat, answers: Sequence[Message], options: ReadOptions, facts: Facts | None = None
) -> dict[str, Any]:
    """The row and the whole conversation in a new column `messages` (`batchchat_messages` where the row has one)."""
    return with_conversation(data, conversation(chat, answers))


def with_conversation(data: Row, messages: Sequence[Message]) -> dict[str, Any]:
    """The row with a conversation in a new column, see `free_column`."""
    entries = [message.as_dict() for message in messages]
    return {**data, free_column(data, "messages"): entries}


PROMPT = Format("prompt", matches, read, write, apart=apart, together=together)
