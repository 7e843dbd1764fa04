"""What tests of replicas share: a job, an engine of its replicas, and requests that show how they come and go."""

from __future__ import annotations

import itertools
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from batchchat.chats import Request
from batchchat.launch.devices import find_places
from batchchat.launch.engine import ReplicatedEngine
from batchchat.launch.local import LocalLauncher
from batchchat.launch.messages import Begin
from batchchat.launch.versions import versions
from batchchat.recipe import load_recipe
from batchchat.reporting.meters import Meters
from tests.support.jobs import ROOT, scripted_recipe, write_jsonl
from tests.support.requests import scripted_requests

MISBEHAVING = "tests.support.misbehaving"


def job(folder: Path, rows: int = 60, **sections: Any) -> Path:
    """Chats of one to three turns."""
    chats = [
        {"question_id": n, "turns": [f"{'x' * (n % 23)} {turn}" for turn in range(1 + n % 3)]} for n in range(rows)
    ]
    scripted = sections.pop("scripted", {"answer": "counting"})
    engine = {"max_batch_rows": 4, "scripted": scripted, **sections.pop("engine", {})}
    return scripted_recipe(folder / "r.yaml", write_jsonl(folder / "in.jsonl", chats), engine=engine, **sections)


def start(recipe: Path, *args: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "batchchat", "run", str(recipe), "--quiet", *args]
    env = {**os.environ, **environment}
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=env)


def num_stored(database: Path) -> int:
    """How many answers are durable by now."""
    if not database.exists():
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as store:
        try:
            (count,) = store.execute("SELECT sum(completed) FROM sessions").fetchone()
        except sqlite3.OperationalError:  # it is being made
            return 0
    return int(count or 0)


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def engine_of(recipe: Path, **options: Any) -> ReplicatedEngine:
    loaded = load_recipe(recipe)
    places = find_places(loaded)
    assert places is not None
    begin = Begin(versions(), loaded.model_dump(exclude_none=True), (str(ROOT), *sys.path), None)
    return ReplicatedEngine(LocalLauncher(places), begin, options.pop("meters", None) or Meters(), **options)


def until_all_take_part(engine: ReplicatedEngine) -> Iterator[Request]:
    """Requests, as long as a replica is starting, let go, or has answered nothing."""
    (one,) = scripted_requests(["x"])
    for number in itertools.count():
        if not any(part.startswith("0") or "(" in part for part in engine.standing().split(", ")):
            return
        yield replace(one, chat_id=str(number), index=number)


def few() -> Iterator[Request]:
    """They keep one replica busy for a while."""
    return iter(scripted_requests(["linger, the longest, which begins first", *["x"] * 8]))
