"""report.md, and gates for the summary page of a build."""

from __future__ import annotations

from collections.abc import Sequence

from batchchat.reporting.escape import markdown
from batchchat.reporting.report import AnyReport
from batchchat.reporting.scores import GateOutcome
from batchchat.reporting.tables import report_tables

FILE = "report.md"

_SUMMARY = ("Result", "Why rows failed", "Scores", "What ran")
"""The tables that a summary page shows."""


def render(report: AnyReport) -> str:
    lines = [f"# {markdown(report.name)}", ""]
    for title, rows in report_tables(report):
        lines += _table(f"## {title}", rows)
    if report.missing:
        lines += ["## Not measured", ""]
        lines += [f"- {markdown(what)}: {markdown(why)}" for what, why in report.missing.items()]
        lines.append("")
    lines += ["## Files", ""]
    lines += [f"- {markdown(name)}" for name in report.files]
    return "\n".join(lines) + "\n"


def render_summary(report: AnyReport) -> str:
    """What a build's summary page tells of a run: its gates, counts, scores and what ran."""
    lines = [] if report.gates is None else [render_gates(report.gates, report.name)]
    for title, rows in report_tables(report):
        if title in _SUMMARY:
            lines += _table(f"#### {markdown(report.name)}: {title}", rows)
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    lines = [f"| {markdown(what)} | {markdown(figure)} |" for what, figure in rows]
    return [title, "", "| what | figure |", "|---|---|", *lines, ""]


def render_gates(gates: Sequence[GateOutcome], run: str) -> str:
    """A table of the gates, failed ones first; a line instead where there are none."""
    title = f"### Gates of {markdown(run)}\n\n"
    if not gates:
        return f"{title}The recipe has no gates.\n"
    failed = sum(not gate.passed for gate in gates)
    verdict = f"{failed} of {len(gates)} gates failed." if failed else f"All {len(gates)} gates passed."
    rows = [
        f"| {'passed' if gate.passed else '**failed**'} | {markdown(gate.gate)} | {markdown(gate.reason)} |"
        for gate in sorted(gates, key=lambda gate: gate.passed)
    ]
    return "\n".join((f"{title}{verdict}\n", "| result | gate | measured |", "|---|---|---|", *rows, ""))
