"""Counts over a whole run, as its store sums them up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Select = Callable[[str], Iterator[Any]]
"""Runs a query on a run store."""


@dataclass(frozen=True)
class Totals:
    """Counts over the whole run, all sessions together."""

    rows: int
    rows_done: int
    rows_failed: int
    samples_answered: int
    samples_failed: int
    turns: int
    prompt_tokens: int
    completion_tokens: int
    finish_reasons: dict[str, int] = field(default_factory=dict)
    sessions: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class UserTotals:
    """Counts of a simulated user's turns. `faults` and `ended` are by kind."""

    turns: int
    prompt_tokens: int
    completion_tokens: int
    faults: dict[str, int]
    ended: dict[str, int]


@dataclass(frozen=True)
class ToolTotals:
    """Counts of a tool's calls that were run."""

    calls: int
    failed: int
    seconds: float
    longest: float


def user_totals(select: Select) -> UserTotals:
    """Counts of the turns that a simulated user wrote, and how its chats ended, over all sessions."""
    of_user = "json_extract(record, '$.message.role') = 'user'"
    turns, prompt, completion = next(
        select(
            "SELECT count(*), coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) "
            f"FROM turns WHERE {of_user}"
        )
    )
    kinds = "SELECT json_extract(record, '$.{}'), count(*) FROM turns GROUP BY 1 ORDER BY 1"
    faults, ended = (
        {kind: count for kind, count in select(kinds.format(name)) if kind is not None} for name in ("fault", "ends")
    )
    return UserTotals(turns, prompt, completion, faults, ended)


def tool_totals(select: Select) -> dict[str, ToolTotals]:
    """By name, counts of the tools that were run, over all sessions."""
    name, failed = "json_extract(record, '$.message.name')", "json_extract(record, '$.note')"
    return {
        tool: ToolTotals(*counts)
        for tool, *counts in select(
            f"SELECT {name}, count(*), count({failed}), sum(finished - started), max(finished - started) FROM turns "
            "WHERE finish_reason = 'tool_result' GROUP BY 1 ORDER BY 1"
        )
    }
