"""The part of a report on what the answers are worth: metrics, judges and gates."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, JsonValue

from batchchat.chats.record import Answers, Metric, Numbers, Record, Samples, Scores, Share, Unit
from batchchat.scoring.distributions import ConfidenceBin
from batchchat.scoring.distributions import Histogram as Bins
from batchchat.scoring.gates import GateResult
from batchchat.scoring.treatments import Treatments

if TYPE_CHECKING:  # numbers are not needed to read a report
    from batchchat.scoring.statistics import Estimate


class Uncertainty(Record):
    """How far a figure can be trusted. Null where so few scores do not tell."""

    n: Scores = Field(description="Scores that the figure is the mean of.")
    standard_error: Metric | None = Field(default=None, description="Standard error, clustered by chat.")
    low: Metric | None = Field(default=None, description="Lower end of the interval.")
    high: Metric | None = Field(default=None, description="Upper end of the interval.")
    confidence: Share | None = Field(default=None, description="Confidence of the interval.")
    method: str = Field(default="none", description="How the interval was made.")
    clusters: Samples | None = Field(default=None, description="Independent units behind the scores: chats, or items.")


class Figure(Uncertainty):
    """An estimate."""

    value: Metric = Field(description="The figure.")

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        return cls(**asdict(estimate))


class Counts(Record):
    """What became of the answers. `answers` is the sum of `scored`, `unscored` and `skipped`, and also that of
    `complete`, `failed`, `empty`, `truncated` and `refused`."""

    answers: Answers = Field(description="All.")
    scored: Answers = Field(description="In the mean, those that a treatment counts wrong included.")
    unscored: Answers = Field(description="Without a reference to score by.")
    skipped: Answers = Field(description="Left out by a treatment.")
    scorer_errors: Answers = Field(description="On which the scorer itself failed.")
    complete: Answers = Field(description="That ended as they should.")
    failed: Answers = Field(description="That were never written.")
    empty: Answers = Field(description="Without text or tool call.")
    truncated: Answers = Field(description="That ended at the token limit.")
    refused: Answers = Field(description="That decline to answer.")


class MetricPart(Uncertainty):
    """A metric over a part of the answers."""

    mean: Metric | None = Field(description="Mean score; null where nothing could be scored.")
    counts: Counts = Field(description="What became of the answers.")
    details: dict[str, Metric] = Field(default={}, description="Means of the scorer's further numbers.")
    overall: dict[str, Metric] = Field(
        default={}, description="Figures that only all answers together have, such as BLEU."
    )
    pass_at: dict[str, Share] = Field(default={}, description="By k, the chance that one of k samples is right.")
    majority: Metric | None = Field(
        default=None, description="Mean score of what most samples of a turn agree on; only where there are several."
    )

    def figures(self) -> dict[str, float]:
        """What there is besides the mean, by the name under which gates know it."""
        return {
            **self.overall,
            **{f"pass@{k}": value for k, value in self.pass_at.items()},
            **({} if self.majority is None else {"majority": self.majority}),
        }


class Histogram(Record):
    """How often values lie in each of several bins."""

    edges: tuple[Metric, ...] = Field(description="Where bins begin, and where the last one ends.")
    counts: tuple[Numbers, ...] = Field(
        description="Values from an edge to below the next; the last bin holds its end."
    )

    @classmethod
    def of(cls, bins: Bins) -> Self:
        return cls(edges=bins.edges, counts=bins.counts)


class Calibrated(Record):
    """Answers of about the same confidence: the geometric mean of their tokens' probabilities."""

    confidence: Share = Field(description="Mean confidence.")
    score: Share = Field(description="Mean score.")
    n: Scores = Field(description="How many.")

    @classmethod
    def of(cls, found: ConfidenceBin) -> Self:
        return cls(**asdict(found))


class MetricScores(MetricPart):
    """A metric over all answers."""

    options: dict[str, JsonValue] = Field(description="The options of the scorer or judge, defaults included.")
    histogram: Histogram | None = Field(default=None, description="How the scores in the mean are distributed.")
    calibration: tuple[Calibrated, ...] = Field(
        default=(), description="By confidence, where answers have log-probabilities and scores are shares of 1."
    )
    by: dict[str, MetricPart] = Field(default={}, description="By `column=value` of the recipe's `summary.by`.")


class Scoring(Record):
    """All metrics."""

    file: str = Field(description="The file of the single scores.")
    lines: Scores = Field(description="Lines of that file.")
    treatments: Treatments = Field(description="What became of answers that are not complete.")
    metrics: dict[str, MetricScores] = Field(description="By name.")
    notes: tuple[str, ...] = Field(description="What could not be summed up, and why.")


class JudgeAudit(Record):
    """What a judge's grades say of the judge."""

    directory: str = Field(description="The run in which the judge answered.")
    figures: dict[str, Figure] = Field(description="By name.")
    missing: dict[str, str] = Field(description="Figures that could not be had, and why.")


class GateOutcome(Record):
    """A condition of the recipe."""

    gate: str = Field(description="As the recipe says it.")
    metric: str = Field(description="The metric that it is on.")
    passed: bool = Field(description="Whether it holds.")
    measured: Metric | None = Field(description="The metric, or the difference to the other run; null if not measured.")
    reason: str = Field(description="Why, in a sentence.")

    @classmethod
    def of(cls, result: GateResult) -> Self:
        gate = result.gate
        return cls(
            gate=gate.text, metric=gate.metric, passed=result.passed, measured=result.measured, reason=result.reason
        )


class KeepStage(Record):
    """A step of the recipe's `keep`. What it removed stands in removed.jsonl, each with the reason."""

    kind: str = Field(description="What it is: where, function, duplicates, contaminated or best.")
    condition: str = Field(description="As the recipe says it.")
    samples: Samples = Field(description="That came to it.")
    removed: Samples = Field(description="That it removed; the others went on to the next step.")
    example: str | None = Field(default=None, description="The reason of the first one.")


class Kept(Record):
    """What became of the samples. `samples` is the sum of `failed`, of `removed` of all stages, and of `kept`."""

    samples: Samples = Field(description="All.")
    failed: Samples = Field(description="That have no whole answer: they are in errors.jsonl.")
    stages: tuple[KeepStage, ...] = Field(description="The steps, in their order.")
    kept: Samples = Field(description="Lines of kept.jsonl.")
    pairs: Annotated[int, Unit("pairs")] = Field(description="Lines of pairs.jsonl: a better answer and a worse one.")


class Evaluation(Record):
    """What a report gains by scoring."""

    scoring: Scoring | None = Field(default=None, description="The metrics, where the recipe has scorers or judges.")
    judges: dict[str, JudgeAudit] = Field(default={}, description="By name, what the judges say of themselves.")
    gates: tuple[GateOutcome, ...] | None = Field(
        default=None, description="The recipe's gates, in its order, if it has any."
    )
    keep: Kept | None = Field(default=None, description="Which answers were kept, where the recipe says which.")

    def changed(self, **values: object) -> Self:
        """The same with other values of some fields; None takes one out."""
        taken = {name for name, value in values.items() if value is None}
        kept = {name: value for name, value in {**self.values(), **values}.items() if name not in taken}
        return type(self).model_validate(kept)

    def noted(self, note: str) -> Self:
        """The same with one more note on the scores, before the others."""
        assert self.scoring is not None, "there is nothing to note something on"
        scoring = self.scoring.model_copy(update={"notes": (note, *self.scoring.notes)})
        return self.model_copy(update={"scoring": scoring})

    @property
    def gates_hold(self) -> bool:
        """Whether no gate failed."""
        return all(gate.passed for gate in self.gates or ())
