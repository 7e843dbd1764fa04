"""Reports as files. A writer is a module with `FILE`, the name that it gives a report in a run directory, and
`render(report) -> str`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from batchchat.reporting.report import AnyReport
from batchchat.store import RunDirectory

_ROOM = "batchchat.reporting.writers"
WRITERS: dict[str, str] = {
    "json": f"{_ROOM}.json",
    "markdown": f"{_ROOM}.markdown",
    "html": "batchchat.reporting.html.page",
    "junit": f"{_ROOM}.junit",
}
"""Name to module, imported only when asked for."""

ALWAYS = ("json", "markdown", "html")
"""The writers of every run."""


class ReportWriter(Protocol):
    """A form of the report."""

    FILE: str

    def render(self, report: AnyReport) -> str:
        """The whole file."""
        ...


def writer(name: str) -> ReportWriter:
    """The writer of this name."""
    return cast(ReportWriter, importlib.import_module(WRITERS[name]))


def write_report(report: AnyReport, directory: RunDirectory, writers: Sequence[str] = ALWAYS) -> None:
    """Write the report into its directory, each file in one step."""
    for name in writers:
        found = writer(name)
        directory.write(directory.path / found.FILE, found.render(report))
