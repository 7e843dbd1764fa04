"""A finished run whose files were changed since: they are made anew from its store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from batchchat.job.files import changed_files, output_files
from batchchat.job.reading import ChatReader
from batchchat.recipe import Recipe
from batchchat.reporting.keeping import keep_report, report_files
from batchchat.reporting.report import Report
from batchchat.scoring.row import FILE
from batchchat.store import RunDirectory, RunStore
from batchchat.store.export import export
from batchchat.store.seals import seal

log = logging.getLogger("batchchat")


def write_outputs(
    store: RunStore, directory: RunDirectory, recipe: Recipe, reader: ChatReader, types: Mapping[str, Any]
) -> None:
    """Export every row, and remember the files. `types` are the Arrow types of the input's columns."""
    export(store, directory, recipe, reader.chat, reader.options, types)
    seal(store, output_files(directory, recipe))


def mend(
    report: Report,
    store: RunStore,
    directory: RunDirectory,
    recipe: Recipe,
    reader: ChatReader,
    types: Callable[[], Mapping[str, Any]],
) -> bool:
    """Write anew what was changed, emptied or removed of a finished run, and say so. Returns whether its scores are
    still there, which are not made here."""
    broken = changed_files(report, store, directory, recipe)
    for file, fate in broken.items():
        log.warning("%s %s since the run wrote it; it is made anew from the run store", file, fate)
    if broken.keys() & set(output_files(directory, recipe)):
        write_outputs(store, directory, recipe, reader, types())
    if broken.keys() & set(report_files(directory)):
        keep_report(report, store, directory)
    store.commit()
    return directory.path / FILE not in broken
