"""What a report's page shows besides plots: key figures, facts, tables, scores by part."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from batchchat.chats.record import Record
from batchchat.reporting.html.plots import interval, span_of
from batchchat.reporting.html.words import meaning
from batchchat.reporting.report import AnyReport, Report
from batchchat.reporting.score_tables import score_tables
from batchchat.reporting.scores import MetricPart, MetricScores
from batchchat.reporting.tables import report_tables

_MOST_PARTS = 60
"""Rows of a metric's table by column; the report's JSON has all."""


@dataclass(frozen=True)
class Fact:
    """A figure or fact, with what it means."""

    name: str
    value: str
    meaning: str | None = None
    good: bool | None = None


@dataclass(frozen=True)
class ScoreLine:
    """A metric over all answers or a part of them, with the image of its interval."""

    name: str
    mean: str
    interval: str
    n: int
    image: Markup
    further: str = ""


@dataclass(frozen=True)
class ScoreTable:
    """One metric: over all answers, then by the values of columns."""

    metric: str
    lines: list[ScoreLine]
    span: str
    apart: str
    method: str
    left_out: int


def key_figures(report: AnyReport) -> list[Fact]:
    """What one wants to know first."""
    facts: list[Fact] = []
    if isinstance(report, Report):
        rows, session = report.rows, report.session
        facts.append(Fact("rows answered", f"{rows.answered:,} of {rows.in_:,}", None, rows.failed == 0))
        if session.generated_tokens_per_second is not None:
            facts.append(Fact("generated tokens/s", f"{session.generated_tokens_per_second:,.0f}"))
        facts.append(Fact("tokens generated", f"{report.tokens.generated:,}"))
    elif report.input is not None:
        facts.append(Fact("rows read", f"{report.input.rows:,}", None, report.input.failed == 0))
    facts.append(Fact("time", _duration(report.wall_seconds)))
    for name, metric in list(report.scoring.metrics.items())[:3] if report.scoring is not None else ():
        facts.append(Fact(name, "–" if metric.mean is None else f"{metric.mean:.4g}", _interval_text(metric)))
    if report.gates is not None:
        failed = sum(not gate.passed for gate in report.gates)
        said = f"{failed} of {len(report.gates)} failed" if failed else f"all {len(report.gates)} passed"
        facts.append(Fact("gates", said, None, not failed))
    return facts


def lead(report: AnyReport) -> str:
    """What was run, in a line."""
    if not isinstance(report, Report):
        return report.answers_in
    said = [report.about.model if report.about else "", report.engine.dtype, f"{report.engine.engine} engine"]
    if report.about is not None:
        said += [machine.processor for machine in [report.about.machine]]
        said += [device.name for device in report.about.machine.accelerators]
    return " · ".join(part for part in said if part)


def about_facts(report: AnyReport) -> list[Fact]:
    """What was run: everything that the report says of it, each under the name and the words of its schema."""
    facts = [Fact("batchchat", report.batchchat, "The version that wrote this.")]
    facts += _facts_of(report.about) if report.about is not None else []
    if isinstance(report, Report):
        facts.append(Fact("engine", report.engine.engine, report.engine.note))
    else:
        facts.append(Fact("answers in", report.answers_in, "The file whose answers were scored."))
    return facts


def plain_tables(report: AnyReport) -> list[tuple[str, list[Fact]]]:
    """The report's other tables, with what each figure means."""
    shown_apart = {"Scores", "Scores by column", "Gates", "What ran"}
    judges = {title for title, _ in score_tables(report)} - shown_apart
    tables = [table for table in report_tables(report) if table[0] not in shown_apart]
    ordered = sorted(tables, key=lambda table: table[0] in judges)  # how scores are read comes after the work
    return [(title, [Fact(name, value, meaning(name)) for name, value in rows]) for title, rows in ordered if rows]


def score_sections(report: AnyReport) -> list[ScoreTable]:
    """A table for each metric."""
    return [_score_table(name, metric) for name, metric in report.scoring.metrics.items()] if report.scoring else []


def _score_table(name: str, metric: MetricScores) -> ScoreTable:
    parts: dict[str, MetricPart] = {"all answers": metric, **dict(list(metric.by.items())[:_MOST_PARTS])}
    ends = [x for part in parts.values() for x in (part.low, part.mean, part.high) if x is not None]
    span = span_of(ends) if ends else (0.0, 1.0)
    lines = [
        ScoreLine(
            part,
            "–" if found.mean is None else f"{found.mean:.4g}",
            _interval_text(found),
            found.n,
            Markup() if found.mean is None else interval(found.low, found.mean, found.high, span),
            ", ".join(f"{what} {value:.4g}" for what, value in found.figures().items()),
        )
        for part, found in parts.items()
    ]
    names = ("unscored", "skipped", "scorer_errors", "failed", "empty", "truncated", "refused")
    counts = [(what.replace("_", " "), getattr(metric.counts, what)) for what in names]
    apart = ", ".join(f"{what} {count:,}" for what, count in counts if count)
    method = metric.method if metric.method != "none" else ""
    said = f"{span[0]:g} to {span[1]:g}"
    return ScoreTable(name, lines, said, apart, method, max(0, len(metric.by) - _MOST_PARTS))


def _interval_text(found: MetricPart) -> str:
    return "" if found.low is None or found.high is None else f"{found.low:.4g} to {found.high:.4g}"


def _facts_of(record: Record, within: str = "") -> Iterator[Fact]:
    for name, field in type(record).model_fields.items():
        value = getattr(record, name)
        shown = f"{within} {name}".strip().replace("_", " ")
        if isinstance(value, Record):
            yield from _facts_of(value, shown)
        elif name == "command" and value:
            yield Fact(shown, shlex.join(value), field.description)
        elif value is not None and value != () and value != {}:
            yield Fact(shown, _plain(value), field.description)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(found)}" for name, found in value.items() if found is not None)
    if isinstance(value, tuple | list):
        return ", ".join(map(_plain, value))
    if isinstance(value, Record):
        return _plain(value.as_dict())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.1f} h"
