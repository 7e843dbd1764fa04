"""What a scorer is: strict options, a pure function of answer and reference, and a score that says its reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from batchchat.chats import Message
from batchchat.scoring.reasoning import without_reasoning

Texts = Annotated[tuple[str, ...], Field(strict=False)]
"""A list of texts in a recipe; frozen once it is read."""

Turn = Literal["last", "all"] | Annotated[int, Field(ge=1)]


class ScorerOptions(BaseModel):
    """Options that every scorer has."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, serialize_by_alias=True)

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$",
        description="Name of the metric, where one scorer is used twice; the scorer's own name by default.",
    )
    reference: str | None = Field(
        default=None,
        description="Column that holds the reference answer, with dots for nested fields (`labels.gold`); the chat's "
        "own reference by default. A list holds several accepted answers, of which the best counts.",
    )
    reference_per_turn: bool = Field(
        default=False,
        description="The reference is a list with one entry per assistant turn, instead of several accepted answers.",
    )
    turn: Turn = Field(
        default="last",
        description="Which assistant turn is scored: `last`, `all` (one score per turn, clustered by chat), or its "
        "number, counted from 1.",
    )
    reasoning: bool = Field(
        default=False,
        description="Score the answer together with its reasoning. By default reasoning is removed first.",
    )


@dataclass(frozen=True, slots=True)
class Score:
    """The verdict on one answer.

    `value` is None where there is no score: `status` is then `unscored` (a missing reference; it says nothing about
    the answer) or `error` (the scorer failed on this row; `bad_reference` where that is because what the answer was to
    be held against cannot be read). `parsed` is what was read from the answer, `expected` what it was held against;
    `details` are further numbers, averaged like `value` under their own names.
    """

    value: float | None
    reason: str
    parsed: str | None = None
    expected: str | None = None
    details: Mapping[str, float] = field(default_factory=dict)
    status: Literal["scored", "unscored", "error"] = "scored"
    bad_reference: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An assistant turn as a scorer sees it: `text` is empty where the turn has only tool calls."""

    text: str
    tool_calls: tuple[Mapping[str, Any], ...] = ()


class BadReference(ValueError):
    """A reference that cannot be read as what the scorer compares with: a mistake of the recipe or of its data, which
    says nothing about any answer."""


ScoreFunction = Callable[[Answer, Any, Mapping[str, Any]], Score]
"""(answer, reference, the row's columns) -> score. Pure: equal arguments, equal score."""


@runtime_checkable
class ScorerModule(Protocol):
    """What a module with a scorer holds at least; see `scoring.table`."""

    Options: type[ScorerOptions]

    def make(self, options: Any, /) -> ScoreFunction: ...


@dataclass(frozen=True)
class Scorer:
    """A scoring function with its options, applied to the turns of a chat.

    `needs_reference`: a row without a reference, as `missing` tells, is unscored, and counted as such, before
    `function` is asked.
    `overall` makes figures of the whole run from the sums of its scores' details.
    """

    name: str
    options: ScorerOptions
    function: ScoreFunction
    needs_reference: bool = True
    missing: Callable[[Any], bool] = lambda reference: is_missing(reference)
    overall: Callable[[Mapping[str, float]], Mapping[str, float]] | None = None

    def score(self, answer: Message, columns: Mapping[str, Any], reference: Any = None) -> Score:
        """The score of one assistant turn; `reference` is what the chat itself carries for it.

        Never raises: what a scorer throws becomes the score's reason, so that one row costs one row.
        """
        if self.options.reference is not None:
            reference = column(columns, self.options.reference)
        return self._against(reference, answer, columns)

    def reference_mistake(
        self, num_turns: int, columns: Mapping[str, Any], reference: Any = None, references: Sequence[str | None] = ()
    ) -> str | None:
        """Why what a chat's answers are held against cannot be read, tried with empty answers; None where it can."""
        blank = [Message("assistant", "")] * num_turns
        found = (self.score_turn(turn, blank, columns, reference, references) for turn in self.turns(num_turns))
        return next((score.reason for score in found if score.bad_reference), None)

    def turns(self, num_turns: int) -> Sequence[int]:
        """The turns (from 0) of a chat with `num_turns` that the options ask for; a numbered one may not be there."""
        return wanted_turns(self.options.turn, num_turns)

    def score_turn(
        self,
        turn: int,
        answers: Sequence[Message],
        columns: Mapping[str, Any],
        reference: Any = None,
        references: Sequence[str | None] = (),
    ) -> Score:
        """The score of turn `turn` (from 0).

        `answers[k]` is the assistant turn k, `reference` the chat's reference answer, `references[k]` the turn that
        stood in the input where answer k goes; the latter is used where the chat has no reference of its own.
        """
        if turn >= len(answers):
            reason = f"there is no turn {turn + 1}: the chat has {len(answers)} answers"
            return Score(None, reason, status="unscored")
        own = reference
        if self.options.reference is not None:
            own = column(columns, self.options.reference)
        elif self.missing(own) and turn < len(references):
            own = references[turn]
        if self.options.reference_per_turn and not self.missing(own):
            if not isinstance(own, list | tuple):
                reason = f"reference_per_turn is on, but the reference is a {type(own).__name__}, not a list"
                return Score(None, reason, status="error", bad_reference=True)
            own = own[turn] if turn < len(own) else None
        return self._against(own, answers[turn], columns)

    def _against(self, reference: Any, answer: Message, columns: Mapping[str, Any]) -> Score:
        if self.needs_reference and self.missing(reference):
            where = f"column '{self.options.reference}'" if self.options.reference else "the chat's reference"
            return Score(None, f"no reference: {where} is missing or empty", status="unscored")
        try:
            score = self.function(visible_answer(answer, self.options.reasoning), reference, columns)
        except BadReference as error:
            return Score(None, str(error), status="error", bad_reference=True)
        except Exception as error:  # a scorer may be the user's own code, and any row may break it
            return Score(None, f"{self.name} failed: {type(error).__name__}: {error}", status="error")
        if score.value is None and score.status == "scored":
            return replace(score, status="unscored")
        if score.value is not None and not math.isfinite(score.value):
            return Score(None, f"{self.name} gave {score.value}, which is no score", status="error")
        return score


def wanted_turns(wanted: Turn, num_turns: int) -> Sequence[int]:
    """The turns (from 0) that a recipe's `turn` means in a chat with `num_turns`; a number is taken as it is."""
    if wanted == "all":
        return range(num_turns)
    return (max(num_turns - 1, 0),) if wanted == "last" else (wanted - 1,)


def visible_answer(message: Message, reasoning: bool) -> Answer:
    """What of an assistant turn is scored: its content with reasoning removed, or with it in front if asked for."""
    content = message.content or ""
    if not reasoning:
        return Answer(without_reasoning(content), message.tool_calls)
    text = f"{message.reasoning}\n{content}" if message.reasoning else content
    return Answer(text, message.tool_calls)


def column(columns: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; a column whose own name holds dots wins. None where there is none."""
    if path in columns:
        return columns[path]
    value: Any = columns
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return None
        value = value[key]
    return value


def is_missing(reference: Any) -> bool:
    """True for no reference: None, an empty or blank text, an empty list."""
    if reference is None:
        return True
    if isinstance(reference, str):
        return not reference.strip()
    return isinstance(reference, list | tuple) and all(is_missing(entry) for entry in reference)


def accepted(reference: Any) -> tuple[str, ...]:
    """The accepted answers of a reference as texts: one, or all that are not blank in a list."""
    entries = reference if isinstance(reference, list | tuple) else (reference,)
    return tuple(str(entry) for entry in entries if not is_missing(entry))


def best(scores: Sequence[Score]) -> Score:
    """The highest of the scores against each accepted answer; the first of equals."""
    return max(scores, key=lambda score: float("-inf") if score.value is None else score.value)
