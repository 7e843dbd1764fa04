"""The sections on scores: `scoring`, `summary`, `gates`, and what a judge is asked. None of them changes an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from batchchat.errors import UsageError
from batchchat.plugins.tables import SCORERS
from batchchat.recipe.open_section import OneOf, OpenSection
from batchchat.recipe.section import AsTuple, Section, Text, Texts
from batchchat.scoring.base import ScorerOptions, Turn
from batchchat.scoring.gates import parse_gate
from batchchat.scoring.grading import Labels, Scale
from batchchat.scoring.metric_names import JUDGE_FIGURES, Figures, gate_mistake
from batchchat.scoring.table import figure_names
from batchchat.scoring.treatments import Treatments

JUDGE_NAME = r"[A-Za-z][A-Za-z0-9_-]*"


class ScorerEntry(OpenSection):
    """One scorer with its options: exactly one of these names."""

    tables = (SCORERS,)

    @model_validator(mode="before")
    @classmethod
    def _one_scorer(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or len(data) != 1:
            raise ValueError("must name one scorer, such as `numeric: {reference: answer}`; give each its own line")
        return {name: {} if options is None else options for name, options in data.items()}

    @property
    def scorer(self) -> str:
        """The scorer's name in the table."""
        (name,) = self.model_fields_set
        return name.removesuffix("_")

    @property
    def options(self) -> ScorerOptions:
        """What the recipe says about it."""
        found: ScorerOptions = self.options_of(self.scorer)
        return found

    @property
    def metric(self) -> str:
        """The name of its scores."""
        return self.options.name or self.scorer


def _named(value: Any) -> Any:
    """`- exact` is short for `- exact: {}`."""
    if not isinstance(value, str):
        return value
    if value not in SCORERS:
        near = SCORERS.nearest(value)
        raise ValueError(
            f"is {value}, which is no scorer; "
            + (f"did you mean {near}?" if near else f"choose one of {', '.join(SCORERS)}")
        )
    return {value: {}}


def _distinct_metrics(entries: tuple[ScorerEntry, ...]) -> tuple[ScorerEntry, ...]:
    names = [entry.metric for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"has two metrics named {twice}; give one of them another name with `name:`")
    return entries


Scoring = Annotated[
    tuple[
        Annotated[
            SerializeAsAny[ScorerEntry],
            BeforeValidator(_named, json_schema_input_type=Annotated[str, OneOf(SCORERS)] | ScorerEntry),
        ],
        ...,
    ],
    AsTuple,
    AfterValidator(_distinct_metrics),
]
"""The scorers of a recipe, each metric named once."""


class SummarySection(Section):
    """What is made of the scores of single answers."""

    by: Texts = Field(
        default=(),
        description="Columns by whose values every metric is also given, with dots for nested fields.",
        examples=[["category"]],
    )
    pass_at: Annotated[tuple[Annotated[int, Field(ge=1)], ...], AsTuple] = Field(
        default=(),
        description="The k of pass@k, for scores of 0 and 1: the chance that one of k samples is right, estimated "
        "without bias from generation.samples of them.",
        examples=[[1]],
    )
    treatments: Treatments = Treatments()


class JudgeOptions(Section):
    """What a judge is asked, and how its answers become scores."""

    kind: Literal["pointwise", "pairwise"] = Field(
        default="pointwise",
        description="pointwise grades each answer; pairwise compares it with another one in both orders, where a "
        "disagreement is a tie.",
    )
    against: Text | None = Field(
        default=None,
        description="What a pairwise judge compares with: a run directory or a JSONL file with other answers to the "
        "same chats; null is the reference answer.",
        examples=["runs/before"],
    )
    template: Text | None = Field(
        default=None,
        description="The prompt: the name of one that comes along, or a YAML file; null picks the one that fits the "
        "kind, the turn (later turns are judged with the conversation before them) and the reference.",
        examples=["pointwise", "my-judge.yaml"],
    )
    show_reference: Literal["where_present", "never"] = Field(
        default="where_present", description="Whether the judge sees a reference answer, where template is null."
    )
    reference: Text | None = Field(
        default=None,
        description="Column that holds the reference answer, with dots for nested fields; null is the chat's own.",
        examples=["labels.gold"],
    )
    reference_per_turn: bool = Field(
        default=False,
        description="The reference is a list with one entry per assistant turn, null where a turn has none.",
    )
    turn: Turn = Field(
        default="all", description="Which assistant turn is judged: `all`, `last`, or its number, counted from 1."
    )
    grades: Scale | Labels = Field(
        default=Scale(),
        description="The grades of a pointwise judge: a scale from low to high, or words with their values.",
        examples=[{"low": 1, "high": 5}, {"values": {"correct": 1.0, "incorrect": 0.0}}],
    )
    human: Text | None = Field(
        default=None,
        description="Column with people's own grade (pairwise: A, B or tie, where A is this run), to audit the judge.",
        examples=["rating"],
    )

    difficulty: Text | None = Field(
        default=None,
        description="Column with each question's difficulty as a number, for a pairwise judge's length-controlled win "
        "rate: AlpacaEval's definition has a term for it (its `instruction_difficulty`). Without it, or where a row "
        "has none, that figure is not AlpacaEval's.",
        examples=["instruction_difficulty"],
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> JudgeOptions:
        if self.against is not None and self.kind == "pointwise":
            raise ValueError("has `against`, which is for comparing, but is pointwise; write kind: pairwise")
        return self


def _readable_gate(text: str) -> str:
    try:
        parse_gate(text)
    except UsageError as error:
        raise ValueError(f"is no gate: {error}") from error
    return text


Gates = Annotated[tuple[Annotated[Text, AfterValidator(_readable_gate)], ...], AsTuple]
"""Conditions on the metrics, as `scoring.gates` reads them."""


def metric_figures(
    scoring: Sequence[ScorerEntry], judges: Mapping[str, JudgeOptions], summary: SummarySection, samples: int
) -> Figures:
    """Every metric that a run of these will have, with its figures."""
    several = tuple(f"pass@{k}" for k in summary.pass_at) + (("majority",) if samples > 1 else ())
    figures: dict[str, tuple[str, ...] | None] = {}
    for entry in scoring:
        own = figure_names(entry.scorer, entry.options)
        figures[entry.metric] = None if own is None else (*own, *several)
    for name, judge in judges.items():
        figures[name] = JUDGE_FIGURES[judge.kind]
    return figures


def wrong_gates(
    gates: Sequence[str], figures: Figures, columns: Sequence[str], unmeasured: Mapping[str, str] | None = None
) -> list[str]:
    """A sentence for each gate on a metric that the run will not have, or that it never measures: `unmeasured` names
    such metrics, each with what it takes."""
    found: list[str] = []
    for text in gates:
        gate = parse_gate(text)
        mistake = gate_mistake(gate, figures, columns)
        needs = (unmeasured or {}).get(gate.metric.partition("[")[0])
        if mistake is None and needs is not None:
            mistake = f"can never be measured: {gate.metric} needs {needs}"
        if mistake is not None:
            found.append(f"the gate '{text}' {mistake}")
    return found


def unmeasured_figures(judges: Mapping[str, tuple[JudgeOptions, int]]) -> dict[str, str]:
    """What the judges of a recipe say nothing of, by metric, and what it takes; each judge with its samples."""
    found: dict[str, str] = {}
    for name, (judge, samples) in judges.items():
        if judge.human is None:
            needs = f"people's grades, in a column that judges.{name}.human names"
            found |= {f"{name}.{figure}": needs for figure in ("human_agreement", "kappa")}
        if samples < 2:
            found[f"{name}.repeat_agreement"] = f"judges.{name}.generation.samples of 2 or more"
    return found
