"""How far a run is: what is said of it, in any width, without a terminal and to a function."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchchat import RunProgress, load_recipe, run
from batchchat.reporting.progress import duration_text, progress_line
from tests.support.jobs import ROOT, read_jsonl, scripted_recipe, write_jsonl

ROWS = [{"messages": [{"role": "user", "content": f"{n}"}]} for n in range(40)]


def progress(done: int, total: int | None = 1000, before: int = 0, tokens: int = 0, seconds: float = 1) -> RunProgress:
    return RunProgress("test", done, total, before, tokens, seconds)


def test_time_left_is_of_what_is_left_at_the_speed_of_this_process() -> None:
    assert progress(500, seconds=50).seconds_left == 50
    assert progress(900, before=890, seconds=20).seconds_left == 200, "what was done before took this process no time"
    assert progress(900, before=900, seconds=20).seconds_left is None
    assert progress(10, total=None).seconds_left is None
    assert progress(0, total=0).seconds_left is None
    assert str(progress(900, before=890, tokens=4000, seconds=20)) == (
        "900 of 1,000 chats, 90%, 3 min left, 200 tokens/s"
    )


def test_durations_have_two_units() -> None:
    found = [duration_text(seconds) for seconds in (0, 45.4, 720, 12_000, 187_200)]
    assert found == ["0 s", "45 s", "12 min", "3 h 20 min", "2 d 4 h"]


@given(
    st.integers(0, 10**8),
    st.none() | st.integers(0, 10**8),
    st.integers(0, 10**9),
    st.floats(0, 1e7),
    st.integers(1, 250),
)
def test_a_line_fits_into_any_width(done: int, total: int | None, tokens: int, seconds: float, width: int) -> None:
    state = progress(done if total is None else min(done, total), total, 0, tokens, seconds)
    line = progress_line(state, width)
    assert 0 < len(line) <= width
    assert line.isprintable()
    if width >= 250:
        assert str(state) in line


def test_a_narrow_terminal_gets_the_most_telling_parts_whole() -> None:
    state = progress(450, before=400, tokens=123_456, seconds=100)
    assert progress_line(state, 79) == "[##########..............] 450 of 1,000 chats, 45%, 18 min left, 1,235 tokens/s"
    assert progress_line(state, 39) == "450 of 1,000 chats, 45%, 18 min left"
    assert progress_line(state, 20) == "450 of 1,000 chats"
    assert progress_line(state, 12) == "450"
    assert progress_line(state, 2) == "45"


@pytest.mark.parametrize("columns", [40, 12, 100])
def test_on_a_terminal_the_line_is_drawn_over_itself(tmp_path: Path, columns: int) -> None:
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", ROWS),
        engine={"max_batch_rows": 4, "scripted": {"batch_seconds": 0.15}},
    )
    screen = drawn([sys.executable, "-m", "batchchat", "run", str(recipe)], columns)
    lines = [line for row in screen.replace("\r\n", "\n").split("\n") for line in row.split("\r")]
    assert max(map(len, lines)) < columns, "a line that fills the last column breaks on some terminals"
    assert "\x1b" not in screen
    told = [line for line in lines if line.strip()]
    assert len(told) > 3
    assert "\n" not in screen.strip()
    assert told[-1].strip() == {40: "40 of 40 chats, 100%, 0 s left", 12: "40"}.get(columns, told[-1].strip())
    assert ("[####" in told[-1]) == (columns == 100)


def drawn(command: list[str], columns: int) -> str:
    """What a command writes to standard error, a terminal of so many columns."""
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    found = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the terminal's other side was closed
            break
        if not chunk:
            break
        found += chunk
    os.close(ours)
    assert process.wait() == 0, found
    return found.decode()


def test_without_a_terminal_lines_are_logged_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("batchchat.reporting.progress._BETWEEN_LINES", 0.05)
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", ROWS),
        engine={"max_batch_rows": 8, "scripted": {"batch_seconds": 0.06}},
    )
    with caplog.at_level("INFO", logger="batchchat"):
        run(load_recipe(recipe))
    lines = (tmp_path / "runs/test/run.log").read_text(encoding="utf-8").splitlines()
    said = [line for line in lines if re.search(r"\d+ of 40 chats, \d+%, .* left, [\d,]+ tokens/s", line)]
    assert 2 <= len(said) <= 10


def test_a_function_is_told(tmp_path: Path) -> None:
    told: list[RunProgress] = []
    judge = {
        "model": {"name": "scripted"},
        "engine": {"kind": "scripted", "scripted": {"answer": "text", "text": "[[5]]"}},
    }
    recipe = scripted_recipe(
        tmp_path / "r.yaml",
        write_jsonl(tmp_path / "in.jsonl", ROWS),
        engine={"max_batch_rows": 8, "scripted": {"batch_seconds": 0.11}},
        judges={"quality": judge},
    )
    result = run(load_recipe(recipe), on_progress=told.append)
    ours = [state for state in told if state.run == "test"]
    assert len(ours) >= 3
    assert [state.chats_done for state in ours] == sorted(state.chats_done for state in ours)
    assert ours[-1].chats_done == ours[-1].chats_total == 40
    assert ours[-1].tokens == result.report.tokens.generated
    assert ours[-1].seconds_left == 0
    assert told[-1].run == "quality"


def test_a_function_that_raises_stops_the_run_and_what_was_finished_stays(tmp_path: Path) -> None:
    recipe = load_recipe(
        scripted_recipe(
            tmp_path / "r.yaml",
            write_jsonl(tmp_path / "in.jsonl", ROWS),
            engine={"max_batch_rows": 8, "scripted": {"batch_seconds": 0.11}},
        )
    )

    def stop(state: RunProgress) -> None:
        raise InterruptedError(json.dumps(state.chats_done))

    with pytest.raises(InterruptedError) as caught:
        run(recipe, on_progress=stop)
    assert 0 < int(str(caught.value)) < 40
    told: list[RunProgress] = []
    run(recipe, on_progress=told.append)
    assert told[-1].chats_before >= int(str(caught.value)) - 1
    assert len(read_jsonl(tmp_path / "runs/test/outputs.jsonl")) == 40


NOTEBOOK = """
import json, sys
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from batchchat import load_recipe, run

class Cell(DisplayPublisher):
    def publish(self, data, metadata=None, *, transient=None, update=False, **_):
        print(json.dumps({"data": data, "id": transient["display_id"], "update": update}), file=sys.__stdout__)

shell = InteractiveShell.instance(display_pub_class=Cell)
shell.kernel = object()  # as the shells of notebooks have
run(load_recipe(sys.argv[1]), quiet=False)
"""


def test_a_notebook_has_one_bar_that_is_drawn_anew(tmp_path: Path) -> None:
    engine = {"max_batch_rows": 4, "scripted": {"batch_seconds": 0.1}}
    recipe = scripted_recipe(tmp_path / "r.yaml", write_jsonl(tmp_path / "in.jsonl", ROWS), engine=engine)
    command = [sys.executable, "-c", NOTEBOOK, str(recipe)]
    env = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    ended = subprocess.run(command, capture_output=True, cwd=ROOT, env=env, check=True, encoding="utf-8")
    shown = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [one["update"] for one in shown] == [False] + [True] * (len(shown) - 1)
    assert 3 <= len(shown) <= 10, "the run takes a second, and five drawings in it are enough"
    assert len({one["id"] for one in shown}) == 1
    last = shown[-1]["data"]
    assert '<progress max="40" value="40" aria-label="test"' in last["text/html"]
    assert "40 of 40 chats, 100%" in last["text/html"]
    assert last["text/plain"].startswith("test: ")
    assert "chats" not in ended.stderr, "what is drawn is not logged as well"
