"""Rows without a turn of their own: a simulated user begins their chats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.chats.formats.options import Format, ReadOptions
from batchchat.chats.formats.prompt import write
from batchchat.chats.formats.segments import Split, build_chat
from batchchat.chats.types import Chat, SourceRow
from batchchat.errors import BadRow


def matches(data: Mapping[str, Any], options: ReadOptions) -> bool:
    """A row without columns, where there is a simulated user; others are to be named."""
    return not data and options.simulated > 0


def read(row: SourceRow, index: int, options: ReadOptions) -> Chat:
    if not options.simulated:
        raise BadRow("a blank row has no user turn; set simulate, so that a model plays the user")
    return build_chat(row, index, options, [], Split((0,), {}))


BLANK = Format("blank", matches, read, write)
