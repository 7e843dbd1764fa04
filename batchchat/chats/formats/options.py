"""What a row format is, and what the recipe says about reading rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from string import Formatter
from typing import Any, Literal, get_args

from batchchat.chats.types import Chat, Message, SourceRow
from batchchat.errors import UsageError

Turns = Literal["scripted", "last", "regenerate"]
ColumnRole = Literal["id", "messages", "prompt", "tools", "system", "reference"]

Facts = Mapping[str, Any]
"""What is known of the answers besides their words, for formats that have a place for it (OpenAI result lines).

`turns`: one mapping per answer with `finish_reason`, `prompt_tokens`, `completion_tokens` and, if asked for,
`logprobs`; `sample`: the number of the sample from 0; `model`: the name of the model; `created`: when the run began,
in seconds since 1970. Each key may be absent.
"""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How rows become chats: the recipe's `chat` and `source` settings that the formats need.

    `columns` says which column plays a role (`ColumnRole`) where it is not one of the format's usual ones. Raises
    UsageError where a setting has no meaning.
    """

    turns: Turns = "scripted"
    prefill: bool = False
    system: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    prompt_template: str | None = None
    prompt_templates: tuple[str, ...] = ()
    """Several of them, of which each row gets one, by its number; in place of `prompt_template`."""
    server: bool = False
    """Whether a server answers, which follows parameters that no setting stands for."""
    own: Any = None
    """The options of the format itself (`source.NAME`), where it has some."""
    runs_tools: bool = False
    """Whether calls in answers are run."""
    offered: tuple[Mapping[str, Any], ...] = ()
    """The tools that are run, which chats without tools of their own are offered."""
    simulated: int = 0
    """The most user turns of a chat that a simulated user goes on with; 0 where there is none."""
    systems: tuple[tuple[str | None, float], ...] = ()
    """System turns with their weights, of which a simulated chat without its own gets one."""
    seed: int = 0
    """By which it is drawn."""

    def __post_init__(self) -> None:
        if self.turns not in get_args(Turns):
            raise UsageError(f"chat.turns is {self.turns!r}; write one of {', '.join(get_args(Turns))}")
        for role in self.columns:
            if role not in get_args(ColumnRole):
                raise UsageError(f"source.columns has no {role!r}; it names {', '.join(get_args(ColumnRole))}")
        for template in self.templates:
            parse_template(template)

    @property
    def templates(self) -> tuple[str, ...]:
        """The templates of user turns; empty where rows bring their own."""
        return self.prompt_templates if self.prompt_template is None else (self.prompt_template,)


@dataclass(frozen=True, slots=True)
class Whole:
    """A row taken apart: every turn that it holds, answers included, and the columns that hold none of them, with
    their digits. `lost` says, in a few words each, what the turns do not say any more; `id` is how the row is known."""

    messages: tuple[Message, ...]
    columns: Mapping[str, Any]
    lost: tuple[str, ...] = ()
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """A row format in both directions. Pure: no I/O, and no row is changed in place."""

    name: str
    matches: Callable[[Mapping[str, Any], ReadOptions], bool]
    """Whether a row shows this format by its columns."""
    read: Callable[[SourceRow, int, ReadOptions], Chat]
    """The chat of a row; the second argument is its index in the run. Raises BadRow."""
    write: Callable[[Mapping[str, Any], Chat, Sequence[Message], ReadOptions, Facts | None], dict[str, Any]]
    """The output row: the row's columns as they came and in order, with one answer per turn of the chat added in the
    format's own way. Takes the options that the chat was read with. In a chat with `prefill` the last answer holds
    only what the model wrote, and is joined to the turn that it continues."""
    join: Callable[[Sequence[dict[str, Any]]], dict[str, Any]] | None = None
    """One row out of the output rows of a chat's samples, each with its `batchchat`, in formats that have a place for
    several answers; None where every sample has a row."""
    options: type[Any] | None = None
    """The model of its own options, which become the section `source.NAME` of the recipe."""
    apart: Callable[[SourceRow, ReadOptions], Whole] | None = None
    """What a row holds, to be written in another format. Raises BadRow."""
    together: Callable[[Whole], tuple[dict[str, Any], Sequence[str]]] | None = None
    """A row of this format, and what of the whole it does not hold. Raises BadRow where it cannot hold the turns."""


@lru_cache(maxsize=64)
def parse_template(template: str, setting: str = "source.prompt_template") -> tuple[tuple[str, str | None], ...]:
    """The template as (literal text, column or None) pairs; `setting` is where it comes from.

    The whole text between braces is a column's name: unlike `str.format` there is no access to attributes, indices,
    conversions or format specifications. Raises UsageError.
    """
    try:
        parsed = list(Formatter().parse(template))
    except ValueError as error:
        raise UsageError(
            f"{setting} is not a template ({error}): write {{column}}, and {{{{ or }}}} for a brace itself"
        ) from None
    for _, name, spec, conversion in parsed:
        if name is not None and (not name or spec or conversion):
            raise UsageError(
                f"{setting} may only hold names of columns in its braces, without ! or : behind them: write {{column}}"
            )
    pairs = tuple((literal, name) for literal, name, _, _ in parsed)
    if setting == "source.prompt_template" and not any(name for _, name in pairs):
        raise UsageError("source.prompt_template names no column, so that every row would ask the same: write {column}")
    return pairs
