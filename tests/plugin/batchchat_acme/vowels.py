"""A scorer: the share of vowels."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from batchchat.scoring import Answer, Score, ScoreFunction, ScorerOptions

NEEDS_REFERENCE = False


class Options(ScorerOptions):
    """Options of `vowels`."""

    letters: str = Field(default="aeiou", min_length=1, description="The vowels.")


def make(options: Options) -> ScoreFunction:
    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        found = sum(letter in options.letters for letter in answer.text.lower())
        return Score(found / max(1, len(answer.text)), f"{found} vowels", parsed=answer.text)

    return score
