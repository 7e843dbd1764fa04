"""Results of run directories, of directories with scores of other tools' answers, and of files of finished chats."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from batchchat.chats.formats.segments import joined
from batchchat.errors import BadRow, UsageError
from batchchat.evaluation import Answered, FileAnswers
from batchchat.recipe import Recipe, load_recipe, recipe_from_mapping
from batchchat.reporting.reading import read_report
from batchchat.reporting.report import AnyReport, ScoreReport
from batchchat.results.sample import Sample
from batchchat.results.scores import ScoreLines
from batchchat.sources.from_recipe import read_options
from batchchat.store import RunDirectory, RunStore, StoredRow
from batchchat.store.export import answer_turns, conversation_of, turn_facts


class Results(Protocol):
    """The samples of one run, in input order, as often as is needed, and by chat."""

    name: str
    report: AnyReport | None
    """None for a run that is not finished, and for a plain file."""
    note: str | None
    """What could not be read of it."""

    def __iter__(self) -> Iterator[Sample]: ...

    def find(self, chat_id: str, sample: int) -> Sample | None:
        """One sample, if it is here."""
        ...

    def besides(self, keys: Container[tuple[str, int]]) -> Iterator[Sample]:
        """The samples with other keys than these."""
        ...


class RunResults:
    """The results of a run directory, finished or not. Memory is bounded by a row."""

    def __init__(
        self,
        name: str,
        store: RunStore,
        recipe: Recipe,
        report: AnyReport | None,
        scores: ScoreLines,
        note: str | None = None,
    ):
        self.name = name
        self.note = note
        self.store = store
        self.recipe = recipe
        self.report = report
        self._scores = scores
        self._options = read_options(recipe, store.meta("tools"))

    def __iter__(self) -> Iterator[Sample]:
        return self.between(0, 2**62)

    def between(self, first: int, last: int) -> Iterator[Sample]:
        """The samples of the input's rows from `first` to `last`."""
        for row in self.store.rows(first, last):
            yield from self._samples(row)

    def find(self, chat_id: str, sample: int) -> Sample | None:
        row = self.store.row_by_id(chat_id)
        return None if row is None else next((one for one in self._samples(row) if one.answered.sample == sample), None)

    def besides(self, keys: Container[tuple[str, int]]) -> Iterator[Sample]:
        for row in self.store.rows():
            if any((_id(row), sample) not in keys for sample in range(row.samples)):
                yield from (one for one in self._samples(row) if one.key not in keys)

    def _samples(self, row: StoredRow) -> Iterator[Sample]:
        failed = self.store.errors(row.index)
        try:
            chat = None if row.format is None else row.chat(self._options)
        except BadRow:  # it failed for that reason, which the store knows
            chat = None
        data = row.data if chat is not None else {}
        written = self.store.turns(row.index)
        for sample in range(row.samples):
            told = None if chat is None else conversation_of(chat, written.get(sample, []))
            turns = answer_turns(written.get(sample, []))
            answers = [] if told is None else list(told.answers)
            done = told is not None and told.is_complete
            if chat is not None and chat.prefill and done:
                answers[-1] = joined(chat.segments[-1][-1], answers[-1])
            reasons = tuple(turn.finish_reason for turn in turns)
            id_ = chat.id if chat is not None else _id(row)
            as_told = None if told is None else told.as_chat()
            answered = Answered(id_, row.index, sample, data, as_told, tuple(answers), reasons)
            _, reason = failed.get(sample, failed.get(None, (None, None)))
            yield Sample(
                answered,
                "failed" if reason is not None else "answered" if done else "open",
                tuple(turn_facts(turn, chat, timings=True) for turn in turns) if chat is not None else (),
                reason,
                self._scores.of(id_, sample),
                row.raw if chat is None else "",
            )


class FileResults:
    """The results in a file of finished chats, as any tool may have written it."""

    def __init__(self, name: str, answers: FileAnswers, report: AnyReport | None, scores: ScoreLines):
        self.name = name
        self.note: str | None = None
        self.report = report
        self._answers = answers
        self._scores = scores

    def __iter__(self) -> Iterator[Sample]:
        return map(self._sample, self._answers)

    def find(self, chat_id: str, sample: int) -> Sample | None:
        found = self._answers.find(chat_id, sample)
        return None if found is None else self._sample(found)

    def besides(self, keys: Container[tuple[str, int]]) -> Iterator[Sample]:
        return (sample for sample in self if sample.key not in keys)

    def _sample(self, answered: Answered) -> Sample:
        scores = self._scores.of(answered.id, answered.sample)
        if answered.failure is not None:
            return Sample(answered, "failed", (), answered.failure.reason, scores, answered.failure.raw)
        return Sample(answered, "answered", _file_turns(answered), None, scores)


def _id(row: StoredRow) -> str:
    return row.id or f"row-{row.number}"


def _file_turns(answered: Answered) -> tuple[Mapping[str, Any], ...]:
    """The facts that a run's own outputs carry along; none for files of other tools."""
    ours = answered.columns.get("batchchat")
    turns = ours.get("turns") if isinstance(ours, Mapping) else None
    if isinstance(turns, list):
        known = [turn if isinstance(turn, Mapping) else {} for turn in turns]
        known = [turn for turn in known if "role" not in turn]  # those of others are no answers
        if len(known) == len(answered.answers):
            return tuple(known)
    return tuple({} for _ in answered.answers)


@contextmanager
def open_results(path: str | Path) -> Iterator[RunResults | FileResults]:
    """The results at a path. Nothing there is written to. Raises UsageError where there are none."""
    place = Path(path).expanduser()
    if not place.exists():
        raise UsageError(f"there is no run directory and no file {path}; check its path")
    with ExitStack() as stack:
        if not place.is_dir():
            recipe = recipe_from_mapping({"source": {"path": str(place)}})
            yield FileResults(str(path), FileAnswers(str(place), recipe), None, _scores(Path(), stack))
            return
        directory = RunDirectory(place)
        report, note = _report(directory)
        if isinstance(report, ScoreReport):
            answers = FileAnswers(report.answers_in, load_recipe(directory.recipe))
            yield FileResults(str(path), answers, report, _scores(place / "scores.jsonl", stack))
            return
        if not (directory.database.exists() and directory.recipe.exists()):
            raise UsageError(
                f"{path} is no run directory: it holds no run store; name one, or a JSONL file with answers"
            )
        store = RunStore(directory.database, read_only=True)
        stack.callback(store.close)
        scores = _scores(place / "scores.jsonl", stack)
        yield RunResults(str(path), store, load_recipe(directory.recipe), report, scores, note)


def columns_of(results: Results) -> set[str]:
    """The columns of the first rows: enough to tell a misspelt name."""
    names: set[str] = set()
    for sample in islice(results, 101):
        names |= sample.answered.columns.keys()
    return names


def _report(directory: RunDirectory) -> tuple[AnyReport | None, str | None]:
    """The report, or why it cannot be read: answers can be read without it. Raises UsageError where there is nothing
    besides."""
    if not directory.report_json.exists():
        return None, None
    try:
        return read_report(directory.report_json), None
    except UsageError as error:
        if not directory.database.exists():
            raise
        return None, str(error)


def _scores(file: Path, stack: ExitStack) -> ScoreLines:
    found = ScoreLines(file)
    stack.callback(found.close)
    return found
