"""The pass over the answers of a run: every scorer and judge on every answer, then sums, audits and gates."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchchat.chats import Chat, Message
from batchchat.evaluation.answers import Answered, Answers
from batchchat.evaluation.gating import check_runs, hold_gates
from batchchat.evaluation.judge import Judge
from batchchat.evaluation.other_runs import open_answers
from batchchat.evaluation.scorebook import ScoreBook
from batchchat.recipe import Recipe
from batchchat.reporting.scores import (
    Calibrated,
    Counts,
    Evaluation,
    Figure,
    GateOutcome,
    Histogram,
    JudgeAudit,
    MetricPart,
    MetricScores,
    Scoring,
)
from batchchat.scoring import Score, Scorer, make_scorer
from batchchat.scoring.aggregates import Summary
from batchchat.scoring.base import visible_answer
from batchchat.scoring.normalise import TextOptions
from batchchat.scoring.row import FILE
from batchchat.scoring.statistics import Estimate
from batchchat.scoring.treatments import Condition, Treatments
from batchchat.store.directory import replacing

if TYPE_CHECKING:  # a model is not needed where none is asked
    from batchchat.evaluation.reward import Reward

AnswerChats = Callable[[Recipe], object]
"""Runs a recipe to its end: how a judge's questions are answered."""


@dataclass(frozen=True)
class BadReferences:
    """Of `tried` references of a metric, what is wrong with those that it cannot read, each with its place."""

    tried: int
    mistakes: tuple[str, ...]


class Evaluator:
    """What a recipe says about scores, checked and ready before the first answer is written.

    Raises UsageError for a scorer, judge template or other run that cannot be used, EnvironmentFault where a library
    is missing.
    """

    def __init__(self, recipe: Recipe):
        self._recipe = recipe
        self._scorers = tuple(make_scorer(entry.scorer, entry.options) for entry in recipe.scoring)
        self._declines = make_scorer("refusal")
        for name, section in recipe.judges.items():
            Judge(name, section, Path(), None)
            if section.against is not None:
                with open_answers(section.against, recipe):
                    pass
        check_runs(recipe.gates)

    def bad_references(self, chats: Sequence[tuple[Chat, Mapping[str, Any]]]) -> dict[str, BadReferences]:
        """Which references of these chats, each with its row's columns, cannot be read, by metric; metrics without any
        are left out."""
        found: dict[str, BadReferences] = {}
        for scorer in self._scorers:
            tried = [
                (chat, scorer.try_reference(chat.num_turns, row, chat.reference, chat.references))
                for chat, row in chats
            ]
            held = [(chat, score) for chat, score in tried if score is not None]
            mistakes = tuple(f"{chat.place}: {score.reason}" for chat, score in held if score.bad_reference)
            if mistakes:
                found[scorer.name] = BadReferences(len(held), mistakes)
        return found

    def evaluate(
        self, answers: Answers, directory: Path, figures: Mapping[str, float | None], answer_chats: AnswerChats
    ) -> Evaluation:
        """Score every answer into `directory`'s scores.jsonl; what the report gains.

        `figures` are those besides scores that gates may be on. Memory does not grow with the texts.
        """
        recipe = self._recipe
        found: dict[str, Any] = {}
        scores = directory / FILE
        metrics = dict(figures)
        if recipe.metrics:
            with ExitStack() as stack:
                judges = [self._judge(name, answers, directory, answer_chats, stack) for name in recipe.judges]
                rewards = [self._reward(name, answers, directory, stack) for name in recipe.rewards]
                file = stack.enter_context(replacing(scores))
                samples = recipe.generation.samples
                book = ScoreBook(file, recipe.summary.treatments, recipe.summary.by, samples)
                self._score_all(answers, book, [*judges, *rewards])
            found["scoring"] = self._summed_up(book, [*judges, *rewards], metrics)
            found["judges"] = {judge.name: _audit(judge, metrics) for judge in judges}
        if recipe.gates:
            found["gates"] = tuple(map(GateOutcome.of, hold_gates(recipe.gates, metrics, scores)))
        return Evaluation(**found)

    def _judge(
        self, name: str, answers: Answers, directory: Path, answer_chats: AnswerChats, stack: ExitStack
    ) -> Judge:
        """A judge that has answered all its questions."""
        section = self._recipe.judges[name]
        against = None
        if section.against is not None:
            against = stack.enter_context(open_answers(section.against, self._recipe))
        judge = Judge(name, section, directory, against)
        judge.write_questions(answers)
        answer_chats(_where_the_run_computes(judge.recipe, self._recipe))
        judge.open()
        stack.callback(judge.close)
        return judge

    def _reward(self, name: str, answers: Answers, directory: Path, stack: ExitStack) -> Reward:
        """A reward model whose numbers are all known."""
        from batchchat.evaluation.reward import Reward

        reward = Reward(name, self._recipe.rewards[name], directory)
        stack.callback(reward.close)
        reward.compute(answers)
        return reward

    def _score_all(self, answers: Answers, book: ScoreBook, models: Sequence[Judge | Reward]) -> None:
        for scorer in self._scorers:
            book.open_metric(scorer.name)
        for model in models:
            book.open_metric(model.name, model.worst)
        for answered in answers:
            if answered.failure is not None:
                continue
            conditions = [self._condition(answered, turn) for turn in range(len(answered.answers))]
            for scorer in self._scorers:
                for turn in scorer.turns(answered.num_turns):
                    score = None if answered.failed_at(turn) else _scored(scorer, answered, turn)
                    book.add(scorer.name, answered, turn, _condition_at(conditions, turn, score), score)
            for model in models:
                for turn in model.turns(answered):
                    score = None if answered.failed_at(turn) else model.score(answered, turn)
                    book.add(model.name, answered, turn, _condition_at(conditions, turn, score), score)

    def _condition(self, answered: Answered, turn: int) -> Condition:
        message: Message = answered.answers[turn]
        if answered.finish_reasons[turn] == "length":
            return "truncated"
        if not message.tool_calls and not visible_answer(message, reasoning=False).text.strip():
            return "empty"
        return "refused" if self._declines.score(message, {}).value else "complete"

    def _summed_up(
        self, book: ScoreBook, models: Sequence[Judge | Reward], metrics: dict[str, float | None]
    ) -> Scoring:
        """The report's part on scores; every figure also goes into `metrics` under its flat name."""
        recipe = self._recipe
        found: dict[str, MetricScores] = {}
        notes = [f"column '{name}' has too many values to sum up each; see {FILE}" for name in book.crowded()]
        scorers: list[Scorer | Judge | Reward] = [*self._scorers, *models]
        for scorer in scorers:
            pass_at = recipe.summary.pass_at if isinstance(scorer, Scorer) else ()
            summaries, missing = book.summaries(scorer.name, pass_at)
            if (unread := book.bad_references(scorer.name)) is not None:
                notes.append(f"{scorer.name}: {unread}")
            if missing is not None:
                notes.append(f"{scorer.name}: {missing}")
            figures = {part: _figures(summary, _overall(scorer, summary)) for part, summary in summaries.items()}
            for part, summary in summaries.items():
                metrics.update(summary.metrics(part))
                suffix = f"[{part}]" if part else ""
                overall = _overall(scorer, summary)
                metrics.update({f"{scorer.name}.{name}{suffix}": value for name, value in overall.items()})
            parts = {part: MetricPart(**values) for part, values in figures.items() if part}
            whole: dict[str, Any] = {**figures[""], "options": _options(scorer), **({"by": parts} if parts else {})}
            if (bins := summaries[""].histogram) is not None:
                whole["histogram"] = Histogram.of(bins)
            if calibration := book.calibration(scorer.name):
                whole["calibration"] = tuple(map(Calibrated.of, calibration))
            found[scorer.name] = MetricScores(**whole)
        # all values as they are set: a report says how answers were treated, defaults included
        treatments = Treatments(**recipe.summary.treatments.model_dump())
        return Scoring(file=FILE, lines=book.num_lines, treatments=treatments, metrics=found, notes=tuple(notes))


def _where_the_run_computes(judge: Recipe, run: Recipe) -> Recipe:
    """The recipe of a judge's run, on the run's replicas where the judge's own engine leaves that open."""
    own = judge.engine
    if own.replicas != "auto" or own.launcher != "local" or judge.model.parallel != "none":
        return judge
    names = ("replicas", "devices_per_replica", "launcher", "ray_address")
    shared = own.model_copy(update={name: getattr(run.engine, name) for name in names})
    return judge.model_copy(update={"engine": shared})


def _scored(scorer: Scorer, answered: Answered, turn: int) -> Score:
    assert answered.chat is not None, "a turn that did not fail belongs to a chat"
    chat = answered.chat
    return scorer.score_turn(turn, answered.answers, answered.columns, chat.reference, chat.references)


def _condition_at(conditions: list[Condition], turn: int, score: Score | None) -> Condition:
    """The condition of the answer that was scored; a turn that the chat never had is no one's failure."""
    if score is None:
        return "failed"
    return conditions[turn] if turn < len(conditions) else "complete"


def _overall(scorer: Scorer | Judge | Reward, summary: Summary) -> Mapping[str, float]:
    if not isinstance(scorer, Scorer) or scorer.overall is None or not summary.detail_sums:
        return {}
    return scorer.overall(summary.detail_sums)


def _options(scorer: Scorer | Judge | Reward) -> dict[str, Any]:
    """The options as the recipe says them, and in words which steps of normalisation both texts go through."""
    if isinstance(scorer, Judge):
        return {"kind": scorer.section.kind, "model": scorer.section.model.name, "template": scorer.section.template}
    if not isinstance(scorer, Scorer):
        return scorer.options
    plain = json.loads(scorer.options.model_dump_json(exclude_none=True))
    if isinstance(scorer.options, TextOptions):
        plain["normalisation"] = list(scorer.options.steps())
    return dict(plain)


def _figures(summary: Summary, overall: Mapping[str, float]) -> dict[str, Any]:
    """The fields of a `MetricPart`; what a metric does not have is not among them."""
    estimate = asdict(summary.estimate) if summary.estimate else {"value": None, "n": 0}
    return {
        "mean": estimate.pop("value"),
        **estimate,
        "counts": Counts(**summary.counts),
        **({"details": dict(summary.details)} if summary.details else {}),
        **({"overall": dict(overall)} if overall else {}),
        **({"pass_at": {str(k): value for k, value in summary.pass_at.items()}} if summary.pass_at else {}),
        **({} if summary.majority is None else {"majority": summary.majority}),
    }


def _audit(judge: Judge, metrics: dict[str, float | None]) -> JudgeAudit:
    """The judge's figures on itself, and where its own run lies."""
    figures = judge.audit.figures()
    for name, figure in figures.items():
        metrics[f"{judge.name}.{name}"] = figure.value if isinstance(figure, Estimate) else None
    return JudgeAudit(
        directory=str(judge.recipe.run_directory),
        figures={name: Figure.of(f) for name, f in figures.items() if isinstance(f, Estimate)},
        missing={name: f for name, f in figures.items() if isinstance(f, str)},
    )
