"""`f1`: how many words answer and reference share, as the F1 of precision and recall (SQuAD's measure)."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from batchchat.scoring.base import Answer, Score, ScoreFunction, accepted, best
from batchchat.scoring.normalise import TextOptions

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Options(TextOptions):
    """Options of `f1`; the defaults are SQuAD's normalisation, and Unicode's punctuation and forms besides."""

    agrees_with: Literal["batchchat", "squad"] = Field(
        default="batchchat",
        alias="as",
        description="`squad` normalises exactly as SQuAD's own evaluation does (ASCII punctuation alone, no Unicode "
        "forms), whatever the other options say, and gives its F1; the detail `exact` is its exact match.",
    )
    ignore_case: bool = Field(default=True, description="Compare without regard to upper and lower case.")
    ignore_punctuation: bool = Field(default=True, description="Delete punctuation from both texts.")
    ignore_articles: bool = Field(default=True, description="Delete the English articles a, an and the.")


def details(options: Options) -> tuple[str, ...]:
    """The names that the details of its scores have."""
    return ("precision", "recall", "exact") if options.agrees_with == "squad" else ("precision", "recall")


def make(options: Options) -> ScoreFunction:
    """F1 between 0 and 1 over words at white space, each counted as often as it occurs; the best reference counts."""
    normalise = _as_squad if options.agrees_with == "squad" else options.normalise

    def own(exact: float) -> dict[str, float]:
        return {"exact": exact} if options.agrees_with == "squad" else {}

    def against(given: list[str], expected_text: str) -> Score:
        expected = normalise(expected_text).split()
        exact = float(given == expected)
        shared = sum((Counter(given) & Counter(expected)).values())
        if not given or not expected:
            # SQuAD (version 1) gives two empty texts an F1 of 0, as they share no word.
            value = 0.0 if options.agrees_with == "squad" else exact
            found = {"precision": value, "recall": value} | own(exact)
            return Score(value, "no words are left after normalisation", " ".join(given), expected_text, found)
        precision, recall = shared / len(given), shared / len(expected)
        value = 0.0 if shared == 0 else 2 * precision * recall / (precision + recall)
        reason = f"{shared} words shared, {len(given)} in the answer, {len(expected)} in the reference"
        found = {"precision": precision, "recall": recall} | own(exact)
        return Score(value, reason, " ".join(given), expected_text, found)

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        given = normalise(answer.text).split()
        return best([against(given, expected) for expected in accepted(reference)])

    return score


def _as_squad(text: str) -> str:
    """Lower case, then no ASCII punctuation, then no articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION))
