"""The report of a run in its store, from which its files can be made anew."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from pydantic import ValidationError

from batchchat.reporting.report import Report
from batchchat.reporting.writers import ALWAYS, write_report, writer
from batchchat.store import RunDirectory, RunStore
from batchchat.store.seals import seal

log = logging.getLogger("batchchat")

_KEY = "report"


def keep_report(report: Report, store: RunStore, directory: RunDirectory) -> None:
    """Write the report's files, and keep it."""
    write_report(report, directory)
    store.set_meta(_KEY, report.as_dict())
    seal(store, report_files(directory))


def kept_report(store: RunStore) -> Report | None:
    """The report of a run that was finished; None for one that was not, or whose report this version cannot read."""
    found = store.meta(_KEY)
    if found is None:
        return None
    try:
        return Report.model_validate_json(json.dumps(found))
    except ValidationError as error:
        first = error.errors()[0]
        log.warning(
            "the report that %s keeps is of another version of batchchat (%s: %s); it is made anew, without the speed "
            "of that session",
            store.path,
            ".".join(map(str, first["loc"])),
            first["msg"],
        )
        return None


def report_files(directory: RunDirectory) -> list[Path]:
    """The files of every report."""
    return [directory.path / writer(name).FILE for name in ALWAYS]
