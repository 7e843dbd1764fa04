"""Several runs over the same chats: whether they are, metric by metric how they differ, and which answers changed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from batchchat.errors import UsageError
from batchchat.evaluation.answers import Answers
from batchchat.evaluation.mark import scores_of
from batchchat.evaluation.scorebook import read_scores
from batchchat.reporting.reading import read_report
from batchchat.scoring.base import visible_answer
from batchchat.scoring.comparison import Comparison, Key, compare_all, correct_together
from batchchat.scoring.gates import GateResult, evaluate_gates, parse_gate
from batchchat.scoring.statistics import bradley_terry


@dataclass(frozen=True)
class ScoredRun:
    """The scores of one run: what counts of each answer, by metric; what each chat asks; how it was scored."""

    name: str
    values: Mapping[str, Mapping[Key, float]]
    asked: Mapping[str, str]
    options: Mapping[str, Mapping[str, JsonValue]]


@dataclass(frozen=True)
class RunComparison:
    """Runs against the first of them. `ratings` are Bradley-Terry ratings by metric, of three runs or more."""

    runs: tuple[str, ...]
    differences: tuple[str, ...]
    """In what the inputs or the scorers differ; empty for runs that can be compared as they are."""
    against_first: Mapping[str, tuple[Comparison, ...]]
    ratings: Mapping[str, Mapping[str, Any] | str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {
            "runs": list(self.runs),
            "differences": list(self.differences),
            "against_first": {run: [asdict(one) for one in found] for run, found in self.against_first.items()},
            "ratings": dict(self.ratings),
        }


def load_run(name: str, directory: str) -> ScoredRun:
    """The scores in a run directory. Raises UsageError where there are none."""
    values: defaultdict[str, dict[Key, float]] = defaultdict(dict)
    asked: dict[str, str] = {}
    file = scores_of(directory)
    for line in read_scores(file):
        asked[line.key[0]] = line.asked
        if line.counted is not None:
            values[line.metric][line.key] = line.counted
    scoring = read_report(Path(directory).expanduser() / "report.json").scoring
    if scoring is None:
        raise UsageError(f"the report of {directory} has no scores; score it again with: batchchat score {directory}")
    metrics = scoring.metrics
    options = {metric: found.options for metric, found in metrics.items()}
    return ScoredRun(name, {metric: values[metric] for metric in metrics}, asked, options)


def differences(first: ScoredRun, other: ScoredRun) -> list[str]:
    """In what the inputs and the scoring of two runs differ, a sentence each."""
    found: list[str] = []
    for one, two in ((first, other), (other, first)):
        lacking = [chat for chat in one.asked if chat not in two.asked]
        if lacking:
            found.append(f"{len(lacking):,} chats of {one.name} are not in {two.name}, the first is {lacking[0]!r}")
    changed = [chat for chat, what in first.asked.items() if other.asked.get(chat, what) != what]
    if changed:
        found.append(f"{len(changed):,} chats ask something else in {other.name}, the first is {changed[0]!r}")
    for metric, options in first.options.items():
        if metric in other.options and other.options[metric] != options:
            found.append(
                f"the metric {metric} has other options in {other.name}: {_difference(options, other.options[metric])}"
            )
    return found


def compare_runs(runs: Sequence[ScoredRun], force: bool = False) -> RunComparison:
    """Every further run against the first. Raises UsageError for runs that cannot be compared: no metric or no scored
    chat in common; or, without `force`, other inputs or other scoring, saying what differs."""
    first = runs[0]
    found = [text for other in runs[1:] for text in differences(first, other)]
    if found and not force:
        raise UsageError(
            "these runs are not over the same input, or not scored alike:\n"
            + "\n".join(f"  {text}" for text in found)
            + "\ncompare what they share with --force"
        )
    against: dict[str, tuple[Comparison, ...]] = {}
    for other in runs[1:]:
        shared = {
            metric: {key: value for key, value in values.items() if first.asked.get(key[0]) == other.asked[key[0]]}
            for metric, values in other.values.items()
            if metric in first.values
        }
        if not shared:
            raise UsageError(f"{first.name} and {other.name} have no metric in common; score both with one recipe")
        try:
            against[other.name] = compare_all(shared, first.values)
        except ValueError as error:
            raise UsageError(f"{first.name} and {other.name} cannot be compared: {error}") from error
    ratings = _ratings(runs) if len(runs) > 2 else {}
    return RunComparison(tuple(run.name for run in runs), tuple(found), correct_together(against), ratings)


def not_worse(comparison: RunComparison, margin: float) -> tuple[GateResult, ...]:
    """A gate for each run and metric: it must not be worse than the first run by more than `margin`."""
    results: list[GateResult] = []
    first = comparison.runs[0]
    for run, found in comparison.against_first.items():
        for one in found:
            label = one.metric if len(comparison.runs) == 2 else f"{run}:{one.metric}"
            gate = parse_gate(f"{label.replace(' ', '_')}.mean not worse than {first} by {margin}")
            difference = one.difference
            results += evaluate_gates([gate], {gate.metric: one.ours}, lambda _run, _metric, d=difference: d)  # type: ignore[misc]
    return tuple(results)


def texts(answers: Answers, keys: Iterable[Key]) -> dict[Key, tuple[str, str]]:
    """(what was asked, the answer) of single turns; turns that are not there are left out."""
    found: dict[Key, tuple[str, str]] = {}
    for key in keys:
        chat_id, sample, turn = key
        answered = answers.find(chat_id, sample)
        if answered is None or answered.chat is None or turn >= len(answered.answers):
            continue
        said = [message.content for message in answered.chat.segments[turn] if message.role == "user"]
        answer = visible_answer(answered.answers[turn], reasoning=False)
        calls = "" if not answer.tool_calls else json.dumps([dict(call) for call in answer.tool_calls])
        found[key] = (said[-1] or "" if said else "", f"{answer.text}{calls}")
    return found


def _ratings(runs: Sequence[ScoredRun]) -> dict[str, Mapping[str, Any] | str]:
    """By metric the ratings of all runs, where each answer that two runs share is a game, or why there are none."""
    ratings: dict[str, Mapping[str, Any] | str] = {}
    for metric in runs[0].values:
        playing = [run for run in runs if metric in run.values]
        games: list[tuple[str, str, float]] = []
        for one, other in combinations(playing, 2):
            theirs = other.values[metric]
            for key, value in one.values[metric].items():
                if key in theirs:
                    outcome = 0.5 if value == theirs[key] else float(value > theirs[key])
                    games.append((one.name, other.name, outcome))
        try:
            ratings[metric] = {name: asdict(rating) for name, rating in bradley_terry(games).items()}
        except ValueError as error:
            ratings[metric] = str(error)
    return ratings


def _difference(before: Mapping[str, JsonValue], after: Mapping[str, JsonValue]) -> str:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(f"{name} {before.get(name)!r} -> {after.get(name)!r}" for name in names)
