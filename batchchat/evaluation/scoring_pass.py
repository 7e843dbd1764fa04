"""The end of a run: its answers are scored, and the report says what they are worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.evaluation.answers import RunAnswers
from batchchat.evaluation.evaluator import AnswerChats, Evaluator
from batchchat.evaluation.gating import run_figures
from batchchat.evaluation.scorebook import FILE
from batchchat.recipe import Recipe
from batchchat.reporting.meters import Meters
from batchchat.reporting.tables import report_markdown
from batchchat.store import RunDirectory, RunStore

_PARTS = ("scoring", "judges", "gates")


def is_evaluated(store: RunStore, evaluator: Evaluator) -> bool:
    """Whether the run's scores are those that the recipe asks for."""
    return bool(store.meta("evaluated") == evaluator.mark())


def evaluate_run(
    evaluator: Evaluator,
    recipe: Recipe,
    store: RunStore,
    directory: RunDirectory,
    report: Mapping[str, Any],
    meters: Meters,
    answer_chats: AnswerChats,
) -> dict[str, Any]:
    """Score a finished run and write its report anew; returns the report with its scores, audits and gates."""

    def judged(judge: Recipe) -> None:
        with meters.phase("judge"):
            answer_chats(judge)

    scores = directory.path / FILE
    with meters.phase("score"):
        answers = RunAnswers(str(directory.path), store, recipe)
        gained = evaluator.evaluate(answers, directory.path, run_figures(report), judged)
    if "scoring" not in gained:
        scores.unlink(missing_ok=True)
    seconds = {name: round(meters.seconds[name], 3) for name in ("score", "judge")}
    whole = {name: value for name, value in report.items() if name not in _PARTS}
    files = [name for name in whole["files"] if name != FILE]
    whole["files"] = [files[0], *([FILE] if "scoring" in gained else []), *files[1:]]
    before = sum(whole["phases_seconds"][name] for name in seconds)
    whole["wall_seconds"] = round(whole["wall_seconds"] - before + sum(seconds.values()), 3)
    whole["phases_seconds"] = {**whole["phases_seconds"], **seconds}
    whole |= gained
    directory.write_json(directory.report_json, whole)
    directory.write(directory.report_markdown, report_markdown(whole))
    store.set_meta("evaluated", evaluator.mark())
    store.commit()
    return whole
