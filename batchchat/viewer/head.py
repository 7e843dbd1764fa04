"""What the viewer knows before any chat: the runs, their metrics, and how they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from batchchat.errors import UsageError
from batchchat.evaluation.comparing import compare_runs, load_run
from batchchat.reporting.report import AnyReport, Report
from batchchat.results import Results
from batchchat.version import __version__


def head(runs: Sequence[Results]) -> dict[str, Any]:
    """Plain values; the differences of metrics are those of `batchchat compare`."""
    names = short_names([run.name for run in runs])
    listed = [_run(name, run) for name, run in zip(names, runs, strict=True)]
    differences, notes = _differences(runs, names) if len(runs) > 1 else ({}, [])
    unread = [run.note for run in runs if run.note is not None]
    return {"batchchat": __version__, "runs": listed, "differences": differences, "notes": [*unread, *notes]}


def short_names(paths: Sequence[str]) -> list[str]:
    """The last parts of the paths, as few as tell them apart; equal paths get numbers."""
    whole = [Path(path).expanduser().absolute() for path in paths]
    for length in range(1, max(len(path.parts) for path in whole)):
        names = ["/".join(path.parts[-length:]) for path in whole]
        if len(set(names)) == len(set(whole)):
            break
    return [name if names.index(name) == place else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _run(name: str, run: Results) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": name,
        "path": run.name,
        "finished": run.report is not None or run.note is not None,
        "metrics": [],
    }
    if run.report is not None:
        found |= {"title": run.report.name, "facts": _facts(run.report)}
        metrics = run.report.scoring.metrics if run.report.scoring is not None else {}
        found["metrics"] = [
            {"name": metric, "mean": one.mean, "low": one.low, "high": one.high, "n": one.n}
            for metric, one in metrics.items()
        ]
    return found


def _facts(report: AnyReport) -> dict[str, str]:
    if not isinstance(report, Report):
        return {"answers in": report.answers_in}
    facts = {
        "answered": f"{report.rows.answered:,} of {report.rows.in_:,}",
        "tokens": f"{report.tokens.generated:,}",
    }
    if report.session.generated_tokens_per_second is not None:
        facts["tokens/s"] = f"{report.session.generated_tokens_per_second:,.0f}"
    if report.gates is not None:
        failed = sum(not gate.passed for gate in report.gates)
        facts["gates"] = f"{failed} of {len(report.gates)} failed" if failed else f"{len(report.gates)} passed"
    if report.about is not None:
        facts = {"model": report.about.model, **facts, "started": report.about.started}
    return facts


def _differences(runs: Sequence[Results], names: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """By run what its metrics are more than the first run's, with paired intervals, and what stands against it."""
    try:
        comparison = compare_runs([load_run(name, run.name) for name, run in zip(names, runs, strict=True)], force=True)
    except UsageError as error:
        return {}, [f"metrics are not compared: {error}"]
    found = {
        name: [
            {
                "metric": one.metric, "ours": one.ours, "theirs": one.theirs, "difference": one.difference.value,
                "low": one.difference.low, "high": one.difference.high, "n": one.difference.n,
                "p": one.adjusted_p, "method": one.difference.method, "test": one.test.method,
            }
            for one in several
        ]
        for name, several in comparison.against_first.items()
    }  # fmt: skip
    return found, list(comparison.differences)
