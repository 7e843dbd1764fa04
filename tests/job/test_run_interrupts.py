"""An interrupt between any two lines of what reads, keeps and commits: what is kept is whole, and the run goes on."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import batchchat
from batchchat.job.run import run
from batchchat.recipe import load_recipe
from tests.support.jobs import scripted_recipe, write_jsonl

_WATCHED = tuple(
    str(Path(batchchat.__file__).parent / name)
    for name in ("store/database.py", "job/run.py", "job/turns.py", "job/reading.py")
)
_TRIES = 60


class Interrupter:
    """Within, raises KeyboardInterrupt before the given one of the lines that are watched. Counts them."""

    def __init__(self, before: int | None = None):
        self._before = before
        self.lines = 0

    def __enter__(self) -> Interrupter:
        self._outer = sys.gettrace()
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: Any) -> None:
        sys.settrace(self._outer)

    def _enter(self, frame: FrameType, event: str, _: Any) -> Any:
        return self._line if frame.f_code.co_filename in _WATCHED else None

    def _line(self, frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.lines += 1
            if self.lines == self._before:
                raise KeyboardInterrupt
        return self._line


def job(folder: Path) -> Path:
    """Rows of which one is broken, one has the id of another, and some answers fail, in two samples and two turns."""
    chats = [{"id": n % 6, "messages": [{"role": "user", "content": "x" * n}] * 2} for n in range(7)]
    folder.mkdir()
    return scripted_recipe(
        folder / "r.yaml",
        write_jsonl(folder.parent / "in.jsonl", [*chats[:3], "{broken", *chats[3:]]),
        engine={"max_batch_rows": 3, "scripted": {"answer": "counting", "fail_every": 5}},
        sink={"formats": ["jsonl"], "every": 3},
        generation={"samples": 2},
        max_error_rate=1.0,
    )


def results(recipe: Path) -> dict[str, bytes]:
    """Answers and errors, by file."""
    files = (recipe.parent / "runs/test").rglob("*.jsonl")
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupted_before_any_line(tmp_path: Path) -> None:
    """The outputs, errors and counts are those of a run that nothing interrupted."""
    calm = job(tmp_path / "calm")
    with Interrupter() as counted:
        wanted = run(load_recipe(calm), quiet=True).report
    for number in range(_TRIES):
        recipe = job(tmp_path / str(number))
        line = 1 + number * counted.lines // _TRIES
        with suppress(KeyboardInterrupt), Interrupter(line) as interrupter:  # which is lost in a generator's closing
            run(load_recipe(recipe), quiet=True)
        assert interrupter.lines >= line
        report = run(load_recipe(recipe), quiet=True).report
        assert results(recipe) == results(calm)
        assert (report.rows, report.turns) == (wanted.rows, wanted.turns)
        completed = [session["completed"] for session in report.as_dict()["sessions"]]
        assert sum(completed) == wanted.turns
