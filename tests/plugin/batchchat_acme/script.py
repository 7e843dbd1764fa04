"""Rows whose column `script` is the script of a play, a line each turn."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from batchchat.chats import Chat, Message, SourceRow
from batchchat.chats.formats import Facts, Format, ReadOptions
from batchchat.chats.formats.segments import build_chat, conversation
from batchchat.errors import BadRow
from batchchat.recipe import Section


class ScriptOptions(Section):
    """Who says the lines of a script."""

    user: str = Field(default="U", description="The name of the user.", examples=["ALICE"])


def matches(data: Mapping[str, Any], options: ReadOptions) -> bool:
    return isinstance(data.get("script"), str)


def read(row: SourceRow, index: int, options: ReadOptions) -> Chat:
    name = (options.own or ScriptOptions()).user
    turns = []
    for line in row.data["script"].splitlines():
        speaker, colon, text = line.partition(": ")
        if not colon:
            raise BadRow(f"the line {line!r} of the script has no speaker")
        turns.append(Message("user" if speaker == name else "assistant", text))
    return build_chat(row, index, options, turns)


def write(
    data: Mapping[str, Any], chat: Chat, answers: Sequence[Message], options: ReadOptions, facts: Facts | None = None
) -> dict[str, Any]:
    name = (options.own or ScriptOptions()).user
    lines = (f"{name if turn.role == 'user' else 'A'}: {turn.content}" for turn in conversation(chat, answers))
    return {**data, "script": "\n".join(lines)}


SCRIPT = Format("script", matches, read, write, options=ScriptOptions)
