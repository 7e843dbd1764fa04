"""Rows taken apart in one format and put together in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from batchchat.chats.formats import FORMATS
from batchchat.chats.formats.columns import SYSTEM_COLUMNS, column_for, read_id, system_turn
from batchchat.chats.formats.options import ReadOptions, Whole
from batchchat.chats.types import SourceRow
from batchchat.errors import UsageError


def convertible() -> list[str]:
    """The formats whose rows can be taken apart and put together."""
    return [name for name in FORMATS.builtin if FORMATS[name].apart is not None]


def take_apart(row: SourceRow, name: str, options: ReadOptions) -> Whole:
    """What a row of a format holds; a system turn in a column of its own is a turn like the others. Raises BadRow for
    a row that is none of the format, UsageError for a format that cannot do it."""
    apart = FORMATS[name].apart
    if apart is None:
        raise UsageError(f"rows of the format {name} cannot be taken apart; leave them as they are with --to same")
    whole = replace(apart(row, options), id=read_id(row.data, row.number, options))
    system = system_turn(row.data, options, whole.messages)
    if system is None:
        return whole
    column = column_for(row.data, options, "system", SYSTEM_COLUMNS)
    columns = {key: value for key, value in whole.columns.items() if key != column}
    return replace(whole, messages=(system, *whole.messages), columns=columns)


def put_together(whole: Whole, name: str) -> tuple[dict[str, Any], Sequence[str]]:
    """A row of a format, and what it does not hold, in a few words each. Raises BadRow where the format has no place
    for the turns, UsageError for a format that cannot do it."""
    together = FORMATS[name].together
    if together is None:
        raise UsageError(f"rows cannot be written as {name!r}; choose one of: {', '.join(convertible())}")
    return together(whole)
