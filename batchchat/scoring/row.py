"""What a line of scores.jsonl holds."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from batchchat.chats.record import Metric, Place, Record
from batchchat.scoring.treatments import Condition

FILE = "scores.jsonl"
"""Where the scores lie in a run directory."""


class ScoreRow(Record):
    """A line of scores.jsonl: one answer by one metric."""

    id: str = Field(description="The chat's id.")
    index: Place = Field(description="The chat's place in the input.")
    sample: Place = Field(description="Which of the chat's independent answers.")
    turn: Place = Field(description="The turn that was scored.")
    metric: str = Field(description="The scorer or judge.")
    value: Metric | None = Field(description="The score; null where there is none.")
    status: Literal["scored", "unscored", "error", "failed"] = Field(
        description="`unscored`: without a reference; `error`: the scorer failed; `failed`: there is no answer."
    )
    reason: str = Field(description="Why, in a sentence.")
    condition: Condition = Field(description="How the answer came to be.")
    counted: Metric | None = Field(description="What counts in the mean, after the treatments; null: left out.")
    parsed: str | None = Field(default=None, description="What was read from the answer.")
    expected: str | None = Field(default=None, description="What it was held against.")
    details: dict[str, Metric] = Field(default={}, description="The scorer's further numbers.")
    by: dict[str, str] = Field(default={}, description="Values of the columns of `summary.by`.")
    asked: str = Field(description="A digest of what the chat asks: equal in runs over the same input.")
