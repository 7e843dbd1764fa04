"""The end of a run: its answers are scored, and the good ones kept."""

from __future__ import annotations

from typing import Any

from batchchat.evaluation import AnswerChats, Evaluator, evaluate_run
from batchchat.recipe import Recipe
from batchchat.reporting.keeping import keep_report
from batchchat.reporting.meters import Meters
from batchchat.reporting.report import AnyReport, Report, ScoreReport
from batchchat.reporting.writers import write_report
from batchchat.results import open_results
from batchchat.results.opening import columns_of
from batchchat.selection.files import KEPT, PAIRS, REMOVED
from batchchat.selection.mark import SELECTED, selection_mark
from batchchat.selection.selecting import Selector, refuse_unknown_names
from batchchat.store import RunDirectory, RunStore
from batchchat.store.seals import seal

FILES = (KEPT, REMOVED, PAIRS)


def finish_run(
    evaluator: Evaluator,
    recipe: Recipe,
    store: RunStore,
    directory: RunDirectory,
    report: Report,
    meters: Meters,
    answer_chats: AnswerChats,
) -> Report:
    """Score a finished run, keep its good answers, and write its report anew; returns the report."""
    store.set_meta(SELECTED, None)  # what was kept by other scores
    report = evaluate_run(evaluator, recipe, store, directory, report, meters, answer_chats)
    return select_run(recipe, store, directory, report, meters)


def select_run(recipe: Recipe, store: RunStore, directory: RunDirectory, report: Report, meters: Meters) -> Report:
    """Keep the good answers of a run that is scored, as its recipe says; returns the report with the counts."""
    mark = selection_mark(recipe)
    with meters.phase("keep"):
        changed = _selected(recipe, report, directory)
    seal(store, [directory.path / name for name in FILES if name in changed["files"]])
    seconds = round(meters.seconds["keep"], 3)
    changed["wall_seconds"] = round(report.wall_seconds - report.phases_seconds.get("keep", 0.0) + seconds, 3)
    changed["phases_seconds"] = {**report.phases_seconds, "keep": seconds}
    whole = report.changed(**changed)
    keep_report(whole, store, directory)
    store.set_meta(SELECTED, mark)
    store.commit()
    return whole


def keep_apart(recipe: Recipe, report: ScoreReport, directory: RunDirectory) -> ScoreReport:
    """Keep the good ones of answers that another tool wrote, scored in `directory`; returns the report with the counts,
    which is to be written."""
    if not recipe.keep:
        return report
    write_report(report, directory)  # by which the answers are found
    return report.changed(**_selected(recipe, report, directory))


def _selected(recipe: Recipe, report: AnyReport, directory: RunDirectory) -> dict[str, Any]:
    """Write the files; what changes in the report."""
    first, *others = (name for name in report.files if name not in FILES)
    if not recipe.keep:
        for name in FILES:
            (directory.path / name).unlink(missing_ok=True)
        return {"keep": None, "files": (first, *others)}
    selector = Selector(recipe.keep, recipe.metrics)
    with open_results(directory.path) as results:
        refuse_unknown_names(recipe.keep, (*recipe.metrics, *columns_of(results)))
        kept = selector.select(results, directory.path)
    return {"keep": kept, "files": (first, *selector.files, *others)}


def make_selector(recipe: Recipe) -> None:
    """Raises what is wrong with the recipe's `keep`, as far as it can be told before there are answers."""
    Selector(recipe.keep, recipe.metrics)
