"""`refusal`: whether the answer declines to answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import regex
from pydantic import Field, field_validator

from batchchat.scoring.base import Answer, Score, ScoreFunction, ScorerOptions, Texts
from batchchat.scoring.refusals import REFUSALS
from batchchat.scoring.scorers.pattern import compiled_pattern

NEEDS_REFERENCE = False


class Options(ScorerOptions):
    """Options of `refusal`."""

    patterns: Texts = Field(
        default=(), description="Further regular expressions, without regard to case, that mark a refusal."
    )
    within: int = Field(
        default=300, ge=1, description="How many characters from the start are read: refusals come first."
    )

    @field_validator("patterns")
    @classmethod
    def _compile(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(compiled_pattern(pattern) for pattern in patterns)


def make(options: Options) -> ScoreFunction:
    """1 for a refusal, 0 for none, so that the mean is the refusal rate. Reads the common refusals of English and,
    with fewer forms, of twelve other languages; `patterns` say more."""
    signs = [regex.compile(pattern, regex.IGNORECASE) for pattern in (*REFUSALS, *options.patterns)]

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        opening = answer.text[: options.within]
        for sign in signs:
            found = sign.search(opening, timeout=1.0)
            if found:
                return Score(1.0, "the answer declines", found[0])
        return Score(0.0, "no sign of a refusal")

    return score
