"""A finished run whose files were changed since: they are made anew from its store."""

from __future__ import annotations

import logging

from batchchat.job.files import PARTS, changed_files, output_files
from batchchat.recipe import Recipe
from batchchat.reporting.keeping import keep_report, report_files
from batchchat.reporting.report import Report
from batchchat.scoring.row import FILE
from batchchat.selection.files import KEPT, PAIRS, REMOVED
from batchchat.store import RunDirectory, RunStore
from batchchat.store.export import Export
from batchchat.store.seals import seal

log = logging.getLogger("batchchat")


def write_outputs(exporting: Export, store: RunStore, directory: RunDirectory, recipe: Recipe) -> None:
    """Export every row, and remember the files."""
    exporting.finish()
    seal(store, output_files(directory, recipe), anew=PARTS)


def mend(report: Report, store: RunStore, directory: RunDirectory, recipe: Recipe, exporting: Export) -> bool:
    """Write anew what was changed, emptied or removed of a finished run, and say so. Returns whether its scores are
    still there, and what was kept, which are not made here."""
    broken = changed_files(report, store, directory, recipe)
    for file, fate in broken.items():
        log.warning("%s %s since the run wrote it; it is made anew from the run store", file, fate)
    if broken.keys() & set(output_files(directory, recipe, store)):
        exporting.begin_anew()
        write_outputs(exporting, store, directory, recipe)
    if broken.keys() & set(report_files(directory)):
        keep_report(report, store, directory)
    store.commit()
    return not broken.keys() & {directory.path / name for name in (FILE, KEPT, REMOVED, PAIRS)}
