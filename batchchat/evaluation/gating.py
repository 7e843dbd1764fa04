"""Gates of a run: its metrics under flat names, held to the recipe's conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from batchchat.errors import UsageError
from batchchat.evaluation.mark import scores_of
from batchchat.evaluation.other_runs import collect
from batchchat.reporting.report import Report
from batchchat.scoring.comparison import compare_metric
from batchchat.scoring.gates import Compare, GateResult, NotWorse, evaluate_gates, parse_gates
from batchchat.scoring.metric_names import RUN_FIGURES, split_metric
from batchchat.scoring.statistics import Estimate


def run_figures(report: Report) -> dict[str, float | None]:
    """The figures of the run itself; None for those that were not measured."""
    rows, session = report.rows, report.session
    figures = {
        "errors": rows.failed / rows.in_ if rows.in_ else None,
        "truncated": report.finish_reasons.get("length", 0) / report.turns if report.turns else None,
        "tokens_per_second": session.generated_tokens_per_second,
        "total_tokens_per_second": session.total_tokens_per_second,
        "turns_per_second": session.turns_per_second,
        "padding_efficiency": session.padding_efficiency,
        "seconds": report.wall_seconds,
    }
    assert figures.keys() == set(RUN_FIGURES), "a figure has no name that a gate may use"
    return figures


def hold_gates(gates: Sequence[str], metrics: Mapping[str, float | None], scores: Path) -> tuple[GateResult, ...]:
    """The result of every gate, in order. A metric that did not come up in this run counts as not measured."""
    parsed = parse_gates(gates)
    known = {gate.metric: metrics.get(gate.metric) for gate in parsed}
    return evaluate_gates(parsed, known, against_runs(scores))


def check_runs(gates: Sequence[str]) -> None:
    """Raises UsageError for a gate on a run that has no scores."""
    for gate in parse_gates(gates):
        if isinstance(gate, NotWorse):
            scores_of(gate.run)


def refuse_run_gates(gates: Sequence[str], target: str) -> None:
    """Raises UsageError for a gate on a figure of a run, which the file of answers `target` does not tell."""
    for gate in parse_gates(gates):
        if gate.metric in RUN_FIGURES and gate.metric != "errors":
            raise UsageError(
                f"the gate '{gate.text}' can never be measured: {target} is a file of answers, and {gate.metric} is a "
                "figure of a run; leave the gate out, or write its metric as SCORER.FIGURE"
            )


def against_runs(scores: Path) -> Compare:
    """How "not worse" gates compare the run with these scores with another one: paired by chat, sample and turn."""

    def difference(run: str, name: str) -> Estimate | str:
        found = split_metric(name)
        assert found is not None, "the recipe checked its gates"
        metric, figure, part = found
        ours, asked = collect(scores, metric, figure, part)
        theirs, also_asked = collect(scores_of(run), metric, figure, {})
        other = [chat for chat, what in asked.items() if also_asked.get(chat, what) != what]
        if other:
            return f"{run} is over another input: {len(other)} chats ask something else there, the first is {other[0]}"
        lacking = len(ours.keys() - theirs.keys())
        if lacking:
            return f"{run} has no {name} for {lacking} of the {len(ours)} answers that have one here"
        if not ours:
            return f"no answer here has {name}"
        return compare_metric(metric, ours, theirs).difference

    return difference
