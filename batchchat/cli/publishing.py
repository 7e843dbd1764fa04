"""What CI is told about gates: a table, JUnit XML, and Markdown on the build's summary page."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchchat.reporting.report import AnyReport
    from batchchat.reporting.scores import GateOutcome

SUMMARY_PAGE = "GITHUB_STEP_SUMMARY"
"""The environment variable that names the file of a build's summary page."""


def conclude(report: AnyReport, exit_code: int, json_: bool, junit: Path | None) -> None:
    """Print a report, as JSON or as tables, publish it, and end with the code where it is not 0."""
    import typer

    from batchchat.cli.summary import print_report
    from batchchat.reporting.terminal import Terminal, print_json

    if json_:
        print_json(report.as_dict())
    else:
        print_report(Terminal(), report)
    publish_report(report, junit)
    if exit_code:
        raise typer.Exit(exit_code)


def publish_report(report: AnyReport, junit: Path | None) -> bool:
    """The same of a run's gates, and its report on the summary page."""
    from batchchat.reporting.writers.markdown import render_summary

    return _publish(report.gates or (), report.name, junit, render_summary(report))


def publish_gates(gates: Sequence[GateOutcome], run: str, junit: Path | None) -> bool:
    """Write the gates where they are wanted, and what failed to standard error; returns whether all gates hold.

    Raises UsageError where a file cannot be written.
    """
    from batchchat.reporting.writers.markdown import render_gates

    return _publish(gates, run, junit, render_gates(gates, run) if gates else None)


def _publish(gates: Sequence[GateOutcome], run: str, junit: Path | None, summary: str | None) -> bool:
    from batchchat.errors import DISK_FULL, EnvironmentFault, UsageError
    from batchchat.reporting.escape import one_line
    from batchchat.reporting.terminal import complain
    from batchchat.reporting.writers import junit as junit_writer

    page = os.environ.get(SUMMARY_PAGE)
    try:
        if junit is not None:
            junit.parent.mkdir(parents=True, exist_ok=True)
            junit.write_text(junit_writer.render_gates(gates, run), encoding="utf-8")
        if page and summary is not None:
            with open(page, "a", encoding="utf-8") as file:
                file.write(summary + "\n")
    except OSError as error:
        if error.errno in DISK_FULL:
            raise EnvironmentFault(f"the disk is full, and the gates cannot be written: {error.strerror}") from error
        raise UsageError(f"{error.filename} cannot be written ({error.strerror}); name another file") from error
    failed = [gate for gate in gates if not gate.passed]
    if failed:
        complain(f"{len(failed)} of {len(gates)} gates failed:")
        width = max(len(gate.gate) for gate in failed)
        for gate in failed:
            print(one_line(f"  {gate.gate:<{width}}  {gate.reason}"), file=sys.stderr)
    return not failed
