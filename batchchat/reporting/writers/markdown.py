"""report.md, and gates for the summary page of a build."""

from __future__ import annotations

import re
from collections.abc import Sequence

from batchchat.reporting.report import AnyReport
from batchchat.reporting.scores import GateOutcome
from batchchat.reporting.tables import report_tables

FILE = "report.md"

_SUMMARY = ("Result", "Why rows failed", "Scores", "What ran")
"""The tables that a summary page shows."""


def render(report: AnyReport) -> str:
    lines = [f"# {report.name}", ""]
    for title, rows in report_tables(report):
        lines += _table(f"## {title}", [(_bars(what), _bars(figure)) for what, figure in rows])
    if report.missing:
        lines += ["## Not measured", ""]
        lines += [f"- `{what}`: {why}" for what, why in report.missing.items()]
        lines.append("")
    lines += ["## Files", ""]
    lines += [f"- `{name}`" for name in report.files]
    return "\n".join(lines) + "\n"


def render_summary(report: AnyReport) -> str:
    """What a build's summary page tells of a run: its gates, counts, scores and what ran."""
    lines = [] if report.gates is None else [render_gates(report.gates, report.name)]
    for title, rows in report_tables(report):
        if title in _SUMMARY:
            cells = [(_cell(what), _cell(figure)) for what, figure in rows]
            lines += _table(f"#### {_cell(report.name)}: {title}", cells)
    return "\n".join(lines) + "\n"


def _table(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    """A table of cells that are Markdown already."""
    lines = [f"| {what} | {figure} |" for what, figure in rows]
    return [title, "", "| what | figure |", "|---|---|", *lines, ""]


def render_gates(gates: Sequence[GateOutcome], run: str) -> str:
    """A table of the gates, failed ones first; a line instead where there are none."""
    title = f"### Gates of {_cell(run)}\n\n"
    if not gates:
        return f"{title}The recipe has no gates.\n"
    failed = sum(not gate.passed for gate in gates)
    verdict = f"{failed} of {len(gates)} gates failed." if failed else f"All {len(gates)} gates passed."
    rows = [
        f"| {'passed' if gate.passed else '**failed**'} | {_cell(gate.gate)} | {_cell(gate.reason)} |"
        for gate in sorted(gates, key=lambda gate: gate.passed)
    ]
    return "\n".join((f"{title}{verdict}\n", "| result | gate | measured |", "|---|---|---|", *rows, ""))


def _bars(text: str) -> str:
    return text.replace("|", "\\|")


def _cell(text: str) -> str:
    """Text that stays one cell and is shown as it is: no table bars, line breaks, HTML or Markdown marks."""
    line = re.sub(r"\s+", " ", text)
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", line)
