"""The scores, judges and gates of a report as tables, in the same shape as the others."""

from __future__ import annotations

from batchchat.reporting.scores import Evaluation, Figure, Kept, MetricPart, Scoring, Uncertainty

Row = tuple[str, str]
Table = tuple[str, list[Row]]

_APART = ("unscored", "skipped", "scorer_errors", "failed", "empty", "truncated", "refused")


def score_tables(report: Evaluation) -> list[Table]:
    """Titled lists of (what, figure); none for a run without scores."""
    tables: list[Table] = []
    scoring = report.scoring
    if scoring is not None:
        rows = [row for name, metric in scoring.metrics.items() for row in _metric(name, metric)]
        tables.append(("Scores", rows + [("note", note) for note in scoring.notes]))
        by = [
            (f"{name}, {part}", _estimate(metric.mean, metric))
            for name, whole in scoring.metrics.items()
            for part, metric in whole.by.items()
        ]
        if by:
            tables.append(("Scores by column", by))
        treatments = ", ".join(f"{what}: {how}" for what, how in scoring.treatments)
        tables.append(("How scores are read", [("treatments", treatments), *_normalisations(scoring)]))
    for name, judge in report.judges.items():
        figures = [(what.replace("_", " "), _figure(figure)) for what, figure in judge.figures.items()]
        missing = [(what.replace("_", " "), f"not measured: {why}") for what, why in judge.missing.items()]
        tables.append((f"Judge {name}", figures + missing))
    if report.gates is not None:
        gates = [("passed" if gate.passed else "FAILED", f"{gate.gate}: {gate.reason}") for gate in report.gates]
        tables.append(("Gates", sorted(gates)))
    if report.keep is not None:
        tables.append(("Kept", _kept(report.keep)))
    return tables


def _kept(keep: Kept) -> list[Row]:
    """The way of the samples from the first step to the last."""
    rows = [("samples", f"{keep.samples:,}")]
    if keep.failed:
        rows.append(("failed (errors.jsonl)", f"-{keep.failed:,}"))
    rows += [(stage.kind, f"-{stage.removed:,} of {stage.samples:,}: {stage.condition}") for stage in keep.stages]
    rows.append(("kept", f"{keep.kept:,}"))
    return rows + ([("pairs", f"{keep.pairs:,}")] if keep.pairs else [])


def _metric(name: str, metric: MetricPart) -> list[Row]:
    rows = [(name, _estimate(metric.mean, metric))]
    rows += [(f"  {what}", f"{value:.4g}") for what, value in metric.figures().items()]
    counts = {what: getattr(metric.counts, what) for what in _APART}
    apart = [f"{what.replace('_', ' ')} {count:,}" for what, count in counts.items() if count]
    if apart:
        rows.append(("  counted apart", ", ".join(apart)))
    return rows


def _figure(figure: Figure) -> str:
    return _estimate(figure.value, figure)


def _estimate(value: float | None, found: Uncertainty) -> str:
    """`0.812 ± 0.011 [0.790, 0.833], n 1,319 (Wilson)`: value, standard error, interval, n and method."""
    if value is None:
        return "no score, n 0"
    text = f"{value:.4g}"
    if found.standard_error is not None:
        text += f" ± {found.standard_error:.2g}"
    if found.low is not None:
        text += f" [{found.low:.4g}, {found.high:.4g}]"
    text += f", n {found.n:,}"
    if found.clusters not in (None, found.n):
        text += f" in {found.clusters:,} chats"
    return text if found.method == "none" else f"{text} ({found.method})"


def _normalisations(scoring: Scoring) -> list[Row]:
    found = ((name, metric.options.get("normalisation")) for name, metric in scoring.metrics.items())
    return [
        (f"{name}, normalisation", ", ".join(map(str, steps)) or "none")
        for name, steps in found
        if isinstance(steps, list)
    ]
