"""Scoring what was answered before: a finished run, or a file of finished chats that any tool wrote."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from batchchat.chats import RowError
from batchchat.chats.json_text import json_text
from batchchat.engines.machine import machine_facts
from batchchat.errors import UsageError
from batchchat.evaluation import Answered, Answers, Evaluator, open_answers, refuse_run_gates
from batchchat.job.files import published_files
from batchchat.job.run import run
from batchchat.job.selecting import finish_run, keep_apart, make_selector
from batchchat.recipe import Recipe, load_recipe, recipe_from_mapping
from batchchat.reporting.keeping import kept_report
from batchchat.reporting.meters import Meters
from batchchat.reporting.report import AnswerRows, AnyReport, Provenance, ScoreReport
from batchchat.reporting.writers import write_report
from batchchat.store import RunDirectory
from batchchat.store.directory import replacing
from batchchat.store.export import raw_value
from batchchat.store.manifest import open_store, require_run, time_now, versions
from batchchat.store.publication import Publication
from batchchat.version import __version__

_SECTIONS = {"scoring", "summary", "judges", "rewards", "gates", "keep"}


@dataclass(frozen=True)
class ScoreResult:
    """What scoring came to. `exit_code` is 0, or 4 where a gate failed."""

    report: AnyReport
    directory: Path
    exit_code: int


def score(
    target: str,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    quiet: bool = True,
    command: Sequence[str] = (),
) -> ScoreResult:
    """Score the answers in `target`, a run directory or a JSONL file, without writing any.

    `recipe` is a recipe file whose `scoring`, `summary`, `judges`, `rewards`, `gates` and `keep` count; by default the
    run's own. A run's scores and report are replaced; those of a file go to a run directory named after it. Raises
    UsageError for a target or a recipe that cannot be used.
    """
    if Path(target).expanduser().is_dir():
        return _score_run(target, recipe, overrides, quiet)
    loaded = file_recipe(target, recipe, overrides)
    return score_apart(target, loaded, loaded.run_directory, quiet, command)


def _score_run(target: str, recipe: str | None, overrides: Sequence[str], quiet: bool) -> ScoreResult:
    directory = RunDirectory(Path(target).expanduser())
    require_run(directory, target)
    own = load_recipe(directory.recipe, [] if recipe else overrides)
    if recipe is not None:
        other = load_recipe(recipe, overrides)
        sections = other.model_dump(include=_SECTIONS, exclude_none=True)
        own = recipe_from_mapping({**own.model_dump(exclude_none=True), **sections})
    with ExitStack() as stack:
        evaluator = Evaluator(own)
        make_selector(own)
        directory.lock()
        stack.callback(directory.release)
        store = open_store(directory)
        stack.callback(store.close)
        report = None if store.meta("exported") is None else kept_report(store)
        if report is None:
            raise UsageError(f"the run in {target} is not finished; finish it with: batchchat run {directory.recipe}")
        directory.write(directory.recipe, own.dump_yaml())
        publication = stack.enter_context(Publication(own.published_at, directory, store))
        publication.begin(replace=False)
        report = finish_run(evaluator, own, store, directory, report, Meters(), lambda judge: run(judge, quiet=quiet))
        publication.finish(published_files(directory, own))
    return ScoreResult(report, directory.path, 0 if report.gates_hold else 4)


def score_apart(
    target: str, recipe: Recipe, directory: Path, quiet: bool = True, command: Sequence[str] = ()
) -> ScoreResult:
    """Score the answers in `target` into another directory. Raises UsageError where that holds a run."""
    place, started = RunDirectory(directory), time_now()
    if place.database.exists():
        raise UsageError(f"{place.path} holds a run, whose scores these are not; give them another place with name=…")
    refuse_run_gates(recipe.gates, target)
    evaluator = Evaluator(recipe)
    make_selector(recipe)
    meters = Meters()
    with ExitStack() as stack:
        answers = stack.enter_context(open_answers(target, recipe))
        rows, failed = _rows_of(target, answers)  # a file that cannot be used is found before anything is written
        place.lock()
        stack.callback(place.release)
        with meters.phase("score"):
            shares = {"errors": len(failed) / rows}
            gained = evaluator.evaluate(answers, place.path, shares, lambda judge: run(judge, quiet=quiet))
        files = [place.path / "scores.jsonl", *place.reports, place.recipe]
        with replacing(place.errors) as file:
            for row in failed:
                where = {"id": row.id, "index": row.number, "file": row.place.file, "line": row.place.line}
                error = {**where, "reason": row.reason, "row": raw_value(row.raw)}
                file.write(json_text(error).encode("utf-8") + b"\n")
        if failed:
            files.append(place.errors)
            gained = gained.noted(_unreadable(failed, rows))
        else:
            place.errors.unlink()
        report = ScoreReport(
            name=recipe.name,
            batchchat=__version__,
            directory=str(place.path),
            answers_in=target,
            about=Provenance(versions=versions(), machine=machine_facts(), started=started, command=tuple(command)),
            input=AnswerRows(rows=rows, failed=len(failed)),
            files=tuple(file.name for file in files),
            wall_seconds=round(meters.elapsed, 3),
            missing={},
            **gained.values(),
        )
        place.write(place.recipe, recipe.dump_yaml())
        report = keep_apart(recipe, report, place)
        write_report(report, place)
    if len(failed) > recipe.max_error_rate * rows:
        return ScoreResult(report, place.path, 3)
    return ScoreResult(report, place.path, 0 if report.gates_hold else 4)


def _rows_of(target: str, answers: Answers) -> tuple[int, list[RowError]]:
    """(rows, those that cannot be read) of a file. Raises UsageError where not one of them holds an answer."""
    rows = answered = 0
    failed: list[RowError] = []
    unanswered: Answered | None = None
    for one in answers:
        rows += 1
        if one.failure is not None:
            failed.append(one.failure)
        elif one.answers:
            answered += 1
        elif unanswered is None:
            unanswered = one
    if not answered:
        if failed:
            raise UsageError(f"{failed[0].place} holds no answers to score: {failed[0].reason}")
        if unanswered is not None and unanswered.chat is not None:
            raise UsageError(f"{unanswered.chat.place} holds no answers to score: a user turn has no answer")
        raise UsageError(f"{target} holds no answers; name a file with at least one finished chat")
    return rows, failed


def _unreadable(failed: Sequence[RowError], rows: int) -> str:
    return (
        f"{len(failed):,} of {rows:,} rows could not be read and are in no score; they are in errors.jsonl, the "
        f"first is {failed[0].place}: {failed[0].reason}"
    )


def file_recipe(target: str, recipe: str | None, overrides: Sequence[str]) -> Recipe:
    """The recipe that a file is scored by, named after the file unless an override names it. Raises UsageError where
    it says nothing about scores."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(target).name.partition(".")[0]).strip("-._")[:100] or "scores"
    named = [*([] if recipe is None else [f"name={name}"]), *overrides]
    if recipe is not None:
        loaded = load_recipe(recipe, named)
    else:
        loaded = recipe_from_mapping({"name": name, "source": {"path": target}}, overrides)
    if not loaded.metrics and not loaded.keep:
        raise UsageError(
            f"nothing says how to score {target}, or what to keep of it; name a recipe with a scoring section, or "
            f"write: batchchat score {target} 'scoring=[exact]'"
        )
    return loaded
