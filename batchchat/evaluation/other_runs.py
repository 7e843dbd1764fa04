"""Other runs that a recipe names, by directory or by file: their answers and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from batchchat.errors import UsageError
from batchchat.evaluation.answers import Answers, FileAnswers, RunAnswers
from batchchat.evaluation.scorebook import ScoreLine, read_scores
from batchchat.recipe import Recipe, load_recipe
from batchchat.reporting.reading import read_report
from batchchat.reporting.report import ScoreReport
from batchchat.scoring.comparison import Key
from batchchat.store import RunDirectory, RunStore


@contextmanager
def open_answers(path: str, recipe: Recipe) -> Iterator[Answers]:
    """The answers of a run directory, of a file of finished chats, which `recipe` says how to read, or of the file
    whose scores a directory holds. Raises UsageError where there are none."""
    place = Path(path).expanduser()
    if not place.exists():
        raise UsageError(f"there is no run directory and no file {path}; check its path")
    if not place.is_dir():
        yield FileAnswers(path, recipe)
        return
    directory = RunDirectory(place)
    if not directory.database.exists() and directory.report_json.exists():
        report = read_report(directory.report_json)
        if isinstance(report, ScoreReport):
            yield FileAnswers(report.answers_in, load_recipe(directory.recipe))
            return
    if not (directory.database.exists() and directory.recipe.exists()):
        raise UsageError(f"{path} is no run directory: it holds no run store; name one, or a JSONL file with answers")
    store = RunStore(directory.database)
    try:
        if store.meta("exported") is None:
            raise UsageError(f"the run in {path} is not finished; finish it with: batchchat run {directory.recipe}")
        yield RunAnswers(path, store, load_recipe(directory.recipe))
    finally:
        store.close()


Value = Callable[[ScoreLine], float | None]
"""What a figure says of one answer; None where the answer is not in it."""


def answer_value(figure: str) -> Value:
    """How `mean`, or a share such as `truncated`, reads a line."""
    if figure == "mean":
        return lambda line: line.counted
    if figure == "unscored":
        return lambda line: float(line.status == "unscored")
    if figure == "scorer_errors":
        return lambda line: float(line.status == "error")
    return lambda line: float(line.condition == figure)


def collect(file: Path, metric: str, figure: str, part: Mapping[str, str]) -> tuple[dict[Key, float], dict[str, str]]:
    """(values by key, chat id to what the chat asks) of one metric, over the answers of one part of the run."""
    value = answer_value(figure)
    values: dict[Key, float] = {}
    asked: dict[str, str] = {}
    for line in read_scores(file):
        if line.metric == metric and all(line.part.get(name) == wanted for name, wanted in part.items()):
            asked[line.key[0]] = line.asked
            found = value(line)
            if found is not None:
                values[line.key] = found
    return values, asked
