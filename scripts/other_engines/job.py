"""Commands that are run as a user would run them, killed, and looked at by what they leave."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.parts import ROOT, Unlike, require

SHARED = Path(os.environ.get("SHARED_DATA", ROOT.parent / "shared" / "data"))
"""Real questions, chats and requests, where there are any."""
LITTLE_MEMORY = ("--gpu-memory-utilization", "0.2")
"""For vLLM, which takes nearly all of a machine's memory otherwise, and does not start where others use it."""
MODEL = "builtin:tiny-chat"
RECIPE = "recipes/mt-bench.yaml"
GREEDY = ("generation.max_new_tokens=32", "generation.temperature=0", "generation.model_defaults=false")
KEY_NAME = "OTHER_ENGINES_KEY"
KEY = f"sk-{secrets.token_hex(16)}"
"""Sent to every server, and to be found nowhere."""
_PATIENCE = 600.0


@dataclass(frozen=True)
class Place:
    """A folder for one show, which holds all that it writes and prints."""

    folder: Path
    python: str = sys.executable
    """Of the environment whose batchchat is run."""

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Begin `batchchat ARGUMENTS`; what it prints goes to the folder's log."""
        return self.begin(self.python, "-m", "batchchat", *arguments)

    def begin(self, *command: str | Path) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen([*map(str, command)], cwd=ROOT, stdout=log, stderr=log, env=environment())

    def call(self, *arguments: str | Path) -> float:
        """Wait for `batchchat ARGUMENTS`; the seconds that it took. Raises Unlike where it fails."""
        began = time.monotonic()
        self.wait(self.start(*arguments))
        return time.monotonic() - began

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        if code := process.wait():
            raise Unlike(f"a command ended with {code}: read {self.folder / 'log'}")

    def kill_when(self, process: subprocess.Popen[bytes], reached: Callable[[], bool]) -> None:
        """End a process with SIGKILL as soon as this is reached. Raises Unlike where it ends before."""
        until = time.monotonic() + _PATIENCE
        while not reached():
            if process.poll() is not None or time.monotonic() > until:
                raise Unlike(f"nothing was left to be killed: read {self.folder / 'log'}")
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def report(self, name: str) -> Any:
        return json.loads((self.folder / name / "report.json").read_text(encoding="utf-8"))

    def rows(self, file: str) -> list[Any]:
        with (self.folder / file).open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines]

    def write(self, file: str, rows: Iterator[Any]) -> Path:
        path = self.folder / file
        with path.open("w", encoding="utf-8") as lines:
            lines.writelines(f"{json.dumps(row)}\n" for row in rows)
        return path

    def answers(self, name: str) -> list[list[str]]:
        """The answers to each chat, in the order of the input."""
        rows = self.rows(f"{name}/outputs.jsonl")
        return [[turn["content"] for turn in row["messages"] if turn["role"] == "assistant"] for row in rows]

    def local(self) -> int:
        """MT-Bench by the local engine, as the run `local`; the number of its answers."""
        model = [f"model.name={MODEL}", "model.dtype=float32", "engine.kind=continuous"]
        where = [f"source.path={questions()}", f"sink.directory={self.folder}/local"]
        Place(self.folder).call("run", RECIPE, *where, *model, *GREEDY, "-q")
        return int(self.report("local")["turns"])

    def require_equal(self, name: str, other: str) -> None:
        """Raises Unlike where two runs have other answers."""
        pairs = list(zip(self.answers(name), self.answers(other), strict=True))
        differ = [number for number, (ours, theirs) in enumerate(pairs) if ours != theirs]
        require(not differ, f"{len(differ)} of {len(pairs)} chats have other answers in {name} than in {other}")


def questions() -> str:
    """MT-Bench's where they lie beside the project, else those that come along."""
    real = SHARED / "mt_bench" / "question.jsonl"
    return str(real) if real.exists() else "builtin:mt_bench.jsonl"


def endpoint(url: str, **options: Any) -> list[str]:
    """Overrides for a run whose answers come from a server."""
    settings = {"url": url, "api_key_env": KEY_NAME, **options}
    return ["engine.kind=endpoint", *(f"engine.endpoint.{name}={json.dumps(one)}" for name, one in settings.items())]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", KEY_NAME: KEY}


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def served(place: Place, command: Sequence[str | Path], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server while it is up, at `port` of this machine. Raises Unlike where it does not come up."""
    process = place.begin(*command)
    try:
        await_server(process, port, place)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_server(process: subprocess.Popen[bytes], port: int, place: Place) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            return
        except (urllib.error.URLError, OSError):
            if process.poll() is not None or time.monotonic() > until:
                raise Unlike(f"the server did not come up: read {place.folder / 'log'}") from None
            time.sleep(0.5)
