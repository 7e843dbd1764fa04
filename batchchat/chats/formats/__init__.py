"""Row formats: what a row of the input means as a chat, and how its answers are written back into the row.

    name      a row has                                          the answers go
    openai    `body` with messages and parameters (Batch lines)  to `response`, as a result line
    messages  a list of `{"role", "content"}`                    into the list
    sharegpt  a list of `{"from", "value"}`                      into the list
    turns     `turns`, a list of questions                       to a new column `messages`
    alpaca    `instruction` with `input` or `output`             to `output`
    prompt    `prompt`, `question`, … or a template over columns to a new column `messages`
    blank     no turn: a simulated user begins                   to a new column `messages`

A new column takes another name (`batchchat_messages`) where the row has one of that name: no column of the input is
overwritten but those that the format itself writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.chats.formats.columns import listing
from batchchat.chats.formats.options import Facts, Format, ReadOptions
from batchchat.errors import BadRow
from batchchat.plugins.registry import Registry
from batchchat.plugins.tables import FORMATS as _TABLE

__all__ = ["FORMATS", "Facts", "Format", "ReadOptions", "detect_format"]

FORMATS: Registry[Format] = _TABLE


def detect_format(data: Mapping[str, Any], options: ReadOptions | None = None) -> str:
    """The name of the first format that a row shows, of those that come along. Raises BadRow, saying what was looked
    for."""
    options = options or ReadOptions()
    for name in FORMATS.builtin:
        if FORMATS[name].matches(data, options):
            return name
    raise BadRow(_no_format(data))


def _no_format(data: Mapping[str, Any]) -> str:
    if "response" in data and "custom_id" in data:
        return "this is a result line of an OpenAI batch (it has a response), not a request (which has a body)"
    if "choices" in data:
        return "this row holds answers (choices), not a chat to answer: give the file with the questions"
    for name in ("messages", "conversations", "conversation", "turns"):
        if data.get(name) == []:
            return f"the chat has no turns: {name} is an empty list"
    others = FORMATS.added()
    return (
        "the row has no known format; looked for messages, conversations, turns, instruction with input or output, "
        f"prompt or question, and body (its columns: {listing(data)}): set source.format and source.columns, "
        "or source.prompt_template"
        + (f"; formats of installed packages are to be named: source.format={'|'.join(others)}" if others else "")
    )
