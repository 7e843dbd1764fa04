"""Columns that mean the same in every format: id, reference answer, system turn, tools, own generation settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from batchchat.chats.formats.calls import read_tools
from batchchat.chats.formats.options import ReadOptions
from batchchat.chats.formats.values import check_text, kind
from batchchat.chats.json_text import Numeral, encodable
from batchchat.chats.types import Message
from batchchat.errors import BadRow

ID_COLUMNS = ("id", "custom_id", "question_id", "key", "uuid", "chat_id", "conversation_id")
REFERENCE_COLUMNS = ("reference", "answer", "target", "solution", "output", "expected")
SYSTEM_COLUMNS = ("system", "system_prompt")

Row = Mapping[str, Any]


def column_for(data: Row, options: ReadOptions, role: str, usual: Sequence[str]) -> str | None:
    """The column that plays `role`: the one that the recipe names, else the first usual one; None if it is absent."""
    named = options.columns.get(role)
    for name in usual if named is None else (named,):
        if name in data:
            return name
    return None


def require_column(data: Row, options: ReadOptions, role: str, usual: Sequence[str]) -> str:
    """As `column_for`, but raises BadRow where there is no such column."""
    found = column_for(data, options, role, usual)
    if found is None:
        wanted = options.columns.get(role) or " or ".join(usual)
        raise BadRow(f"the row has no column {wanted} (its columns: {listing(data)}): set source.columns.{role}")
    return found


def turns_column(data: Row, options: ReadOptions, usual: Sequence[str]) -> str:
    """The column with the list of turns: of several usual ones the first that holds a list."""
    if "messages" not in options.columns:
        for name in usual:
            if isinstance(data.get(name), list):
                return name
    return require_column(data, options, "messages", usual)


def first_turn(data: Row, options: ReadOptions, usual: Sequence[str]) -> Any:
    """The first entry of the list of turns, by which formats are told apart; None where there is none."""
    for name in (options.columns["messages"],) if "messages" in options.columns else usual:
        value = data.get(name)
        if isinstance(value, list) and value:
            return value[0]
    return None


def listing(data: Row) -> str:
    """The names of a row's columns for a message, the first twelve of them."""
    names = [str(name) for name in data]
    return ", ".join(names[:12] + ["…"] * (len(names) > 12)) or "none"


def read_id(data: Row, number: int, options: ReadOptions) -> str:
    """The row's id as text: of the column that the recipe names, which must be right, else of the first usual one that
    holds an id. A row without one is called after its number in the input."""
    named = options.columns.get("id")
    if named is None:
        return own_id(data, options) or made_up_id(number)
    require_column(data, options, "id", ID_COLUMNS)
    value = data[named]
    if value is None or value == "":
        return made_up_id(number)
    found = _as_id(value)
    if found is None:
        check_text(value if isinstance(value, str) else "", f"the id in column {named}")
        raise BadRow(f"the id in column {named} is {_what(value)}: ids are strings or whole numbers")
    return found


def own_id(data: Row, options: ReadOptions) -> str | None:
    """The id that a row holds in the column that the recipe names, else in the first usual one with an id."""
    named = options.columns.get("id")
    found = (_as_id(data.get(name)) for name in (ID_COLUMNS if named is None else (named,)))
    return next((id_ for id_ in found if id_), None)


def made_up_id(number: int) -> str:
    """What a row without an id is called."""
    return f"row-{number}"


def names_itself(data: Row, id_: str, options: ReadOptions) -> bool:
    """Whether an id is one that its row was surely meant to be known by: it stands in a column that the recipe names or
    in the first of the usual ones, not in one that might as well hold a kind or a group."""
    named = options.columns.get("id")
    return any(_as_id(data.get(name)) == id_ for name in (ID_COLUMNS[:2] if named is None else (named,)))


def _as_id(value: Any) -> str | None:
    """An id as text; None for what is none. 1.0 is the id 1: a column of whole numbers with a gap is one of floats."""
    if isinstance(value, Numeral) or (isinstance(value, float) and value.is_integer()):
        value = float(value)
        value = int(value) if value.is_integer() else None
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value)
    return text if encodable(text) == text else None


def _what(value: Any) -> str:
    return f"the number {value}" if isinstance(value, float) else kind(value)


def read_reference(data: Row, options: ReadOptions) -> Any:
    """The row's reference answer, any JSON value; None where there is none, it is null, or "" (as MT-Bench has it)."""
    column = column_for(data, options, "reference", REFERENCE_COLUMNS)
    value = None if column is None else data[column]
    return None if value == "" else value


def read_settings(data: Row) -> Mapping[str, Any]:
    """The row's own generation settings: the column `generation` where it is an object. A key that is null is not set
    (Parquet gives every row every key)."""
    settings = data.get("generation")
    if not isinstance(settings, Mapping):
        return {}
    return {name: value for name, value in settings.items() if value is not None}


def read_tools_column(data: Row, options: ReadOptions) -> tuple[Mapping[str, Any], ...] | None:
    """The tools that the row offers, None for none."""
    column = column_for(data, options, "tools", ("tools",))
    return None if column is None else read_tools(data[column], column)


def system_turn(data: Row, options: ReadOptions, messages: Sequence[Message]) -> Message | None:
    """The system turn to put before `messages`: the row's system column, else the recipe's `chat.system`, else none.

    Raises BadRow where the column and a first system turn of the conversation differ: nothing says which one counts.
    """
    own = messages[0].content if messages and messages[0].role in ("system", "developer") else None
    column = column_for(data, options, "system", SYSTEM_COLUMNS)
    text = None if column is None else data[column]
    if text is not None and text != "":
        text = check_text(text, f"column {column}")
        if own is None:
            return Message("system", text)
        if own != text:
            raise BadRow(f"column {column} and the conversation's first turn are two different system turns: keep one")
    if own is None and options.system is not None:
        return Message("system", options.system)
    return None


def drawn_system(number: int, options: ReadOptions, messages: Sequence[Message]) -> Message | None:
    """The system turn that the row of this number draws by weight among `options.systems`, where it has none."""
    if not options.systems or (messages and messages[0].role in ("system", "developer")):
        return None
    digest = blake2b(f"system/{options.seed}/{number}".encode(), digest_size=8).digest()
    left = int.from_bytes(digest) / 2**64 * sum(weight for _, weight in options.systems)
    for text, weight in options.systems:
        left -= weight
        if left < 0:
            return None if text is None else Message("system", text)
    last = options.systems[-1][0]  # rounding may leave a crumb
    return None if last is None else Message("system", last)


def free_column(data: Row, wanted: str) -> str:
    """A name for a new column that overwrites none: `wanted`, else `batchchat_wanted`, else that with a number."""
    if wanted not in data:
        return wanted
    name, number = f"batchchat_{wanted}", 2
    while name in data:
        name, number = f"batchchat_{wanted}_{number}", number + 1
    return name
