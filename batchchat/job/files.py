"""The files of a finished run that can be made anew from its store, and which of them were changed since."""

from __future__ import annotations

from pathlib import Path

from batchchat.recipe import Recipe
from batchchat.reporting.keeping import report_files
from batchchat.reporting.report import Report
from batchchat.scoring.row import FILE
from batchchat.selection.files import KEPT, PAIRS, REMOVED
from batchchat.store import RunDirectory, RunStore
from batchchat.store.seals import broken_seals, sealed

PARTS = "outputs-"
"""How the names of folders begin whose files are parts of the outputs."""


def output_files(directory: RunDirectory, recipe: Recipe, store: RunStore | None = None) -> list[Path]:
    """The files of the answers; with `store` also parts that it knows and that are gone."""
    results = directory.results(recipe.sink)
    files = [file for file in results if not file.name.startswith(PARTS)]
    folders = [folder for folder in results if folder.name.startswith(PARTS)]
    known = [] if store is None else [directory.path / name for name in sealed(store)]
    parts = {part for folder in folders for part in folder.glob("*")} | {
        file for file in known if file.parent in folders
    }
    return [*files, *sorted(parts), directory.errors]


def published_files(directory: RunDirectory, recipe: Recipe) -> list[Path]:
    """The files of a finished run that others want (`sink.publish`)."""
    chosen = [directory.path / name for name in (KEPT, REMOVED, PAIRS)]
    about = [directory.path / FILE, *chosen, directory.recipe, directory.manifest]
    return [*output_files(directory, recipe), *about, *report_files(directory)]


def changed_files(report: Report, store: RunStore, directory: RunDirectory, recipe: Recipe) -> dict[Path, str]:
    """Each file that is not as the run wrote it, and what became of it."""
    scores = [] if report.scoring is None else [directory.path / FILE]
    kept = (
        []
        if report.keep is None
        else [directory.path / name for name in (KEPT, REMOVED, PAIRS) if name in report.files]
    )
    return broken_seals(store, [*output_files(directory, recipe, store), *scores, *kept, *report_files(directory)])
