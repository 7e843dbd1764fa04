"""Counts over a whole run, as its store sums them up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


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
