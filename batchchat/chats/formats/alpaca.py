"""Rows in Alpaca's way: `instruction`, `input` and `output`, perhaps with `history` and `system`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from batchchat.chats.formats.columns import require_column
from batchchat.chats.formats.entries import plain_turns, with_turns
from batchchat.chats.formats.options import Facts, Format, ReadOptions, Whole
from batchchat.chats.formats.segments import answer_text, build_chat, conversation
from batchchat.chats.formats.values import check_text, kind
from batchchat.chats.types import Chat, Message, SourceRow
from batchchat.errors import BadRow

Row = Mapping[str, Any]


def matches(data: Row, options: ReadOptions) -> bool:
    return "instruction" in data and ("input" in data or "output" in data)


def read(row: SourceRow, index: int, options: ReadOptions) -> Chat:
    """The history and the instruction with its input below it as user turn; an `output` that is there already is the
    reference and is not shown to the model."""
    chat = build_chat(row, index, options, _messages(row.data, options))
    output = row.data.get("output")
    old = check_text(output, "output") if output else None
    return replace(
        chat,
        references=(*chat.references[:-1], old),
        reference=chat.reference if "reference" in options.columns else old,
    )


def write(
    data: Row, chat: Chat, answers: Sequence[Message], options: ReadOptions, facts: Facts | None = None
) -> dict[str, Any]:
    """`output` gets the answer, and `history` its new answers where turns of it were written as well."""
    written = {**data, "output": answer_text(answers[-1])}
    if len(answers) > 1:
        turns = [message for message in conversation(chat, answers) if message.role != "system"]
        written["history"] = [
            [question.content, answer_text(answer)]
            for question, answer in zip(turns[:-2:2], turns[1:-2:2], strict=True)
        ]
    return written


def apart(row: SourceRow, options: ReadOptions) -> Whole:
    """The output that a row holds is its last turn."""
    messages = _messages(row.data, options)
    used = {require_column(row.data, options, "prompt", ("instruction",)), "input", "output", "history"}
    if row.data.get("output"):
        messages.append(Message("assistant", check_text(row.data["output"], "output")))
    lost = ("input, which is a part of the instruction now",) if row.data.get("input") else ()
    return Whole(tuple(messages), {name: value for name, value in row.exact.items() if name not in used}, lost)


def together(whole: Whole) -> tuple[dict[str, Any], Sequence[str]]:
    """Questions and answers by turns, with the system turn in a column of its own."""
    system, messages, lost = plain_turns(whole, "alpaca")
    pairs: list[list[str | None]] = []
    for message in messages:
        if message.role == "user":
            pairs.append([message.content, None])
        elif not pairs or pairs[-1][1] is not None:
            raise BadRow("alpaca has no place for an answer without a question")
        else:
            pairs[-1][1] = message.content
    if not pairs:
        raise BadRow("alpaca has no place for a chat without a question")
    question, answer = pairs.pop()
    lost += ["an empty answer"] if answer == "" else []
    turns: dict[str, Any] = {"instruction": question, "input": "", "output": answer or "", **system}
    if pairs:
        turns["history"] = pairs
    row, clashes = with_turns(whole.columns, turns)
    return row, [*lost, *clashes]


def _messages(data: Row, options: ReadOptions) -> list[Message]:
    column = require_column(data, options, "prompt", ("instruction",))
    instruction = check_text(data[column], column)
    more = data.get("input")
    if more:
        instruction = f"{instruction}\n{check_text(more, 'input')}"
    return [*_history(data.get("history")), Message("user", instruction)]


def _history(value: Any) -> list[Message]:
    """The earlier turns, a list of [question, answer] pairs; an answer that is null is to be written."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise BadRow(f"history is {kind(value)}, not a list of [question, answer] pairs")
    messages = []
    for number, pair in enumerate(value):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRow(f"history[{number}] is not a pair [question, answer]")
        messages.append(Message("user", check_text(pair[0], f"history[{number}][0]")))
        if pair[1] is not None:
            messages.append(Message("assistant", check_text(pair[1], f"history[{number}][1]")))
    return messages


ALPACA = Format("alpaca", matches, read, write, apart=apart, together=together)
