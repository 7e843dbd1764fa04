"""The chat in a real terminal: keys go in, and the screen is read."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from batchchat import load_recipe, run
from tests.support import zoo
from tests.support.jobs import ROOT, read_jsonl

PATIENCE = 180.0
"""Seconds that a busy machine may take for anything."""


class Terminal:
    """A program in a terminal of `tmux`."""

    def __init__(self, folder: Path, *arguments: str, width: int = 80, height: int = 40):
        self._server = f"batchchat-{uuid.uuid4().hex[:8]}"
        self._environment = {**os.environ, "TMUX_TMPDIR": str(folder), "XDG_STATE_HOME": str(folder / "state")}
        self._environment |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        command = shlex.join([sys.executable, "-m", "batchchat", "chat", *arguments])
        size = ["-x", str(width), "-y", str(height)]
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, f"{command}; echo ended with $?; sleep 600")

    def send(self, text: str) -> None:
        """Type a line and Enter."""
        self._tmux("send-keys", "-l", "--", text)
        self.press("Enter")

    def press(self, *keys: str) -> None:
        self._tmux("send-keys", *keys)

    def screen(self) -> str:
        """All that was printed, lines that the terminal itself broke joined again."""
        printed = self._tmux("capture-pane", "-p", "-J", "-S", "-1000")
        return "\n".join(line.rstrip() for line in printed.splitlines()).rstrip()

    def wait_for(self, text: str, times: int = 1) -> str:
        """The screen as soon as it shows `text` so many times."""
        end = time.monotonic() + PATIENCE
        while (screen := self.screen()).count(text) < times:
            if time.monotonic() > end:
                pytest.fail(f"{text!r} was not shown {times} times:\n{screen}")
            time.sleep(0.1)
        return screen

    def wait_for_answer(self, question: str) -> None:
        """Until the first token of the answer is shown."""
        line = f"> {question}\n"
        end = time.monotonic() + PATIENCE
        answer = self.wait_for(line.rstrip()).partition(line)[2]
        while not answer.strip() or "loading" in answer:
            assert time.monotonic() < end, answer
            time.sleep(0.1)
            answer = self.screen().partition(line)[2]

    def wait_until_gone(self, text: str) -> None:
        end = time.monotonic() + PATIENCE
        while text in (screen := self.screen()):
            assert time.monotonic() < end, screen
            time.sleep(0.1)
        time.sleep(0.5)

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self._server, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, check=True)
        return done.stdout


Open = Callable[..., Terminal]


@pytest.fixture
def open_terminal(tmp_path: Path) -> Iterator[Open]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux, which gives the test a terminal, is not on this machine")
    opened: list[Terminal] = []

    def open_(*arguments: str, **size: int) -> Terminal:
        opened.append(Terminal(tmp_path, *arguments, **size))
        return opened[-1]

    yield open_
    for terminal in opened:
        terminal.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that never says anything sensible, and takes its time."""
    folder = tmp_path_factory.mktemp("model")
    zoo.byte_bpe().save_pretrained(folder)
    zoo.llama().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 100_000}))
    return folder


def test_keys(open_terminal: Open, tmp_path: Path) -> None:
    terminal = open_terminal("scripted", "engine.kind=scripted")
    terminal.send("hello **you**")
    terminal.wait_for("hello you")
    terminal.press("one", "M-Enter", "two", "Enter")  # Alt-Enter begins a new line
    terminal.wait_for("one\ntwo\n")
    terminal.press("!he", "Tab")
    terminal.wait_for("> !help")
    terminal.press("Enter")
    terminal.wait_for("This list.")
    terminal.press("forgotten")
    terminal.wait_for("> forgotten")
    terminal.press("C-c")  # forgets the line
    terminal.wait_until_gone("forgotten")
    terminal.press("Up", "Up", "Up", "Up", "Enter")  # history
    terminal.wait_for("hello you", times=2)
    terminal.send("!undo")
    terminal.wait_for("taken back: hello **you**")
    terminal.send("!edit")
    terminal.press(" three", "Enter")
    screen = terminal.wait_for("two three\n", times=2)
    assert "forgotten" not in screen
    terminal.press("C-d")
    assert terminal.wait_for("ended with 0").count("Traceback") == 0
    history = tmp_path / "state" / "batchchat" / "history"
    assert "hello **you**" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_twenty_columns(open_terminal: Open) -> None:
    terminal = open_terminal("scripted", "engine.kind=scripted", width=20, height=10)
    terminal.send("a line that is longer than twenty columns")
    terminal.wait_for("41 tokens")
    for line in ("!help", "!status", "!nothing"):
        terminal.send(line)
    terminal.wait_for("there is no command")
    terminal.send("!exit")
    terminal.wait_for("ended with 0")


def test_an_answer_is_stopped_and_the_chat_goes_on(open_terminal: Open, model: Path, tmp_path: Path) -> None:
    terminal = open_terminal(str(model), "max_new_tokens=5000", "ignore_eos=true", "temperature=1", "seed=3")
    terminal.send("hello")
    terminal.wait_for_answer("hello")
    terminal.send("typed meanwhile")
    terminal.press("C-c")
    terminal.wait_for("; stopped")
    terminal.wait_for_answer("typed meanwhile")
    terminal.press("C-c")
    terminal.wait_for("; stopped", times=2)
    terminal.send(f"!export {tmp_path / 'no.yaml'}")
    terminal.wait_for("or came from a file")
    terminal.send("!set max_new_tokens=12")
    terminal.send("again")
    terminal.wait_for("12 tokens")
    terminal.send("!retry")
    terminal.wait_for("12 tokens", times=2)
    terminal.send(f"!export {tmp_path / 'again.yaml'}")
    terminal.wait_for("next: batchchat run")
    terminal.send(f"!save {tmp_path / 'talk.jsonl'}")
    terminal.send("!exit")
    terminal.wait_for("ended with 0")
    result = run(load_recipe(tmp_path / "again.yaml", [f"sink.directory={tmp_path / 'out'}"]))
    (row,) = read_jsonl(result.directory / "outputs.jsonl")
    (saved,) = read_jsonl(tmp_path / "talk.jsonl")
    assert row["messages"] == saved["messages"]
    assert row["batchchat"]["turns"][0]["completion_tokens"] == 12


def test_a_model_that_does_not_load_ends_the_waiting_prompt(open_terminal: Open, tmp_path: Path) -> None:
    terminal = open_terminal(str(tmp_path / "nowhere"))
    screen = terminal.wait_for("ended with 2")
    assert "does not exist; set model.name" in screen
    assert "Traceback" not in screen
