"""`python`: the user's own scorer, a function named `module:function`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from batchchat.plugins.functions import load_function
from batchchat.scoring.base import Answer, Score, ScoreFunction, ScorerOptions

NEEDS_REFERENCE = False
DETAILS = None
"""The function names them."""


class Options(ScorerOptions):
    """Options of `python`."""

    function: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$",
        description="The function as `module:function`, importable from where the command runs. It is called with "
        "the answer's text, the reference (None without one) and the row's columns as a mapping, and returns a "
        "number, true or false, a Score, or None for no score.",
        examples=["my_scorers:is_polite"],
    )


def make(options: Options) -> ScoreFunction:
    """The function's own verdict. Raises UsageError where it cannot be imported or called."""
    function = load_function(options.function, "scoring.python.function")

    def score(answer: Answer, reference: Any, columns: Mapping[str, Any]) -> Score:
        value = function(answer.text, reference, columns)
        if isinstance(value, Score):
            return value
        if value is None:
            return Score(None, f"{options.function} gave no score", status="unscored")
        if isinstance(value, bool | int | float):
            return Score(float(value), f"{options.function} returned {value}")
        raise TypeError(f"{options.function} returned {type(value).__name__}, not a number, a Score or None")

    return score
