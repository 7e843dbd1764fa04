"""The end of a run: its answers are scored, and the report says what they are worth."""

from __future__ import annotations

from batchchat.evaluation.answers import RunAnswers
from batchchat.evaluation.evaluator import AnswerChats, Evaluator
from batchchat.evaluation.gating import run_figures
from batchchat.evaluation.mark import evaluation_mark
from batchchat.recipe import Recipe
from batchchat.reporting.meters import Meters
from batchchat.reporting.report import Report
from batchchat.reporting.writers import write_report
from batchchat.scoring.row import FILE
from batchchat.store import RunDirectory, RunStore


def evaluate_run(
    evaluator: Evaluator,
    recipe: Recipe,
    store: RunStore,
    directory: RunDirectory,
    report: Report,
    meters: Meters,
    answer_chats: AnswerChats,
) -> Report:
    """Score a finished run and write its report anew; returns the report with its scores, audits and gates."""

    def judged(judge: Recipe) -> None:
        with meters.phase("judge"):
            answer_chats(judge)

    scores = directory.path / FILE
    with meters.phase("score"):
        answers = RunAnswers(str(directory.path), store, recipe)
        gained = evaluator.evaluate(answers, directory.path, run_figures(report), judged)
    if gained.scoring is None:
        scores.unlink(missing_ok=True)
    seconds = {name: round(meters.seconds[name], 3) for name in ("score", "judge")}
    before = sum(report.phases_seconds[name] for name in seconds)
    first, *others = (name for name in report.files if name != FILE)
    whole = report.evaluated(
        gained,
        files=(first, *([] if gained.scoring is None else [FILE]), *others),
        wall_seconds=round(report.wall_seconds - before + sum(seconds.values()), 3),
        phases_seconds={**report.phases_seconds, **seconds},
    )
    write_report(whole, directory)
    store.set_meta("evaluated", evaluation_mark(recipe))
    store.commit()
    return whole
