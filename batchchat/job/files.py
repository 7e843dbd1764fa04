"""The files of a finished run that can be made anew from its store, and which of them were changed since."""

from __future__ import annotations

from pathlib import Path

from batchchat.recipe import Recipe
from batchchat.reporting.keeping import report_files
from batchchat.reporting.report import Report
from batchchat.scoring.row import FILE
from batchchat.store import RunDirectory, RunStore
from batchchat.store.seals import broken_seals


def output_files(directory: RunDirectory, recipe: Recipe) -> list[Path]:
    return [*map(directory.outputs, recipe.sink.formats), directory.errors]


def changed_files(report: Report, store: RunStore, directory: RunDirectory, recipe: Recipe) -> dict[Path, str]:
    """Each file that is not as the run wrote it, and what became of it."""
    scores = [] if report.scoring is None else [directory.path / FILE]
    return broken_seals(store, [*output_files(directory, recipe), *scores, *report_files(directory)])
