"""Runs that are complete already: told in less than a second, without torch, transformers or a weight."""

from __future__ import annotations

import json
import logging
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batchchat.errors import UsageError
from batchchat.evaluation.mark import is_evaluated
from batchchat.job.files import changed_files
from batchchat.models.identity import model_files
from batchchat.recipe import Recipe
from batchchat.reporting.keeping import kept_report
from batchchat.reporting.report import Report
from batchchat.results.saved import SavedResults
from batchchat.selection.mark import is_selected
from batchchat.sources.from_recipe import recipe_files, template_files
from batchchat.store import RunDirectory, RunStore
from batchchat.store.manifest import is_kept, open_store
from batchchat.store.publication import is_published

log = logging.getLogger("batchchat")


@dataclass(frozen=True)
class RunResult(SavedResults):
    """What a run came to; its rows and scores are read from its directory. `exit_code` is 0, 3 where more rows failed
    than the recipe's `max_error_rate` allows, or else 4 where a gate failed."""

    report: Report
    directory: Path
    exit_code: int

    @classmethod
    def of(cls, report: Report, directory: RunDirectory, recipe: Recipe) -> RunResult:
        if report.rows.failed > recipe.max_error_rate * report.rows.in_:
            return cls(report, directory.path, 3)
        return cls(report, directory.path, 0 if report.gates_hold else 4)

    def _repr_html_(self) -> str:
        """The key figures, for notebooks."""
        from batchchat.reporting.html.page import render_key_figures

        return render_key_figures(self.report)


def finished_run(recipe: Recipe) -> RunResult | None:
    """The result of a run that was finished before; None where something is left to do, or where that takes a closer
    look: files of input or model that are not as they were when the run read them, or that lie elsewhere."""
    directory = RunDirectory(recipe.run_directory)
    if not (directory.database.exists() and directory.manifest.exists()):
        return None
    directory.lock()
    try:
        store = open_store(directory)
        try:
            seen = store.meta("seen")
            if seen is None or seen != what_it_reads(recipe) or not is_evaluated(store, recipe):
                return None
            if not is_selected(store, recipe):
                return None
            report = finished_report(store, recipe)
            if report is None or changed_files(report, store, directory, recipe) or not is_kept(directory, store):
                return None
            if not is_published(store, recipe.published_at):
                return None
        finally:
            store.close()
        text = recipe.dump_yaml()
        if directory.recipe.read_text(encoding="utf-8") != text:
            directory.write(directory.recipe, text)
    finally:
        directory.release()
    say_finished(directory)
    return RunResult.of(report, directory, recipe)


def say_finished(directory: RunDirectory) -> None:
    log.info("%s was finished before; begin anew with --restart", directory.path)


def finished_report(store: RunStore, recipe: Recipe) -> Report | None:
    """The report of this run where every row was answered before and the answers were exported as they are now asked
    for."""
    return kept_report(store) if store.meta("exported") == wanted_export(recipe) else None


def wanted_export(recipe: Recipe) -> dict[str, Any]:
    """The files that the recipe's answers go to, and how they are written."""
    options = {name: recipe.sink.options_of(name) for name in sorted(recipe.sink.formats)}
    set_options = {name: found.model_dump(mode="json") for name, found in options.items() if found is not None}
    wanted: dict[str, Any] = {"formats": list(options), "timings": recipe.sink.timings}
    wanted |= {name: n for name, n in (("shards", recipe.sink.shards), ("every", recipe.sink.every)) if n is not None}
    return {**wanted, "options": set_options} if set_options else wanted


def what_it_reads(recipe: Recipe) -> dict[str, Any] | None:
    """The recipe's digest, and size and time of change of every file that input and model are read from; None where
    that is not all of them. Read before the files are, so that a change meanwhile is seen as one."""
    try:
        models = [one.model for one in (recipe, recipe.user) if one is not None and one.reads_model]
        found = [recipe_files(recipe), *map(model_files, models)]
    except UsageError:
        return None  # said by whoever opens the file
    template = [Path(one.chat.template) for one in (recipe, recipe.user) if one is not None and one.chat.template]
    template += template_files(recipe)
    files: dict[str, list[int]] = {}
    for group in (*found, template):
        if group is None:
            return None
        for file in group:
            try:
                status = file.stat()
            except OSError:
                return None
            if not stat.S_ISREG(status.st_mode):
                return None
            files[str(file.absolute())] = [status.st_size, status.st_mtime_ns]
    return dict(json.loads(json.dumps({"recipe": recipe.digest(), "files": files})))
