"""What CI is told about gates: a table, JUnit XML, and Markdown on the build's summary page."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from batchchat.reporting.scores import GateOutcome

SUMMARY_PAGE = "GITHUB_STEP_SUMMARY"
"""The environment variable that names the file of a build's summary page."""


def publish_gates(gates: Sequence[GateOutcome], run: str, junit: Path | None) -> bool:
    """Write the gates where they are wanted, and what failed to standard error; returns whether all gates hold.

    Raises UsageError where a file cannot be written.
    """
    from batchchat.errors import DISK_FULL, EnvironmentFault, UsageError
    from batchchat.reporting.escape import one_line
    from batchchat.reporting.terminal import complain
    from batchchat.reporting.writers import junit as junit_writer
    from batchchat.reporting.writers import markdown

    page = os.environ.get(SUMMARY_PAGE)
    try:
        if junit is not None:
            junit.parent.mkdir(parents=True, exist_ok=True)
            junit.write_text(junit_writer.render_gates(gates, run), encoding="utf-8")
        if page and gates:
            with open(page, "a", encoding="utf-8") as file:
                file.write(markdown.render_gates(gates, run) + "\n")
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
