"""How the run's process looks after its replicas, and what a replica compares before it loads anything."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from batchchat.chats import Request, Timings
from batchchat.engines import EngineContext
from batchchat.engines.scripted import ScriptedEngine
from batchchat.errors import EnvironmentFault
from batchchat.launch.base import End, Handle
from batchchat.launch.devices import Place
from batchchat.launch.engine import ReplicatedEngine
from batchchat.launch.local import LocalLauncher, LocalReplica
from batchchat.launch.messages import Answer, Answers, Begin, Failed, FromReplica, Ready, Started, ToReplica, Work
from batchchat.launch.patience import Backoff, Patience
from batchchat.launch.versions import versions
from batchchat.launch.worker import Worker
from batchchat.models.identity import model_identity
from batchchat.recipe import load_recipe
from batchchat.reporting.meters import Meters
from batchchat.schedule import Feed
from tests.support.jobs import ROOT
from tests.support.replicas import MISBEHAVING, engine_of, job
from tests.support.requests import scripted_requests


class Jumping(Meters):
    """A run that is held up: its clock stands still for it, and jumps."""

    lost = 0.0

    def now(self, wait: bool = True) -> float:
        return super().now(wait) + self.lost


class Noting(LocalLauncher):
    """Notes what is done in which order."""

    def __init__(self, places: list[Place]):
        super().__init__(places)
        self.done: list[str] = []

    def start(self, number: int) -> LocalReplica:
        self.done.append(f"start {number}")
        return super().start(number)

    def wait(self, handles: Iterable[Handle], seconds: float) -> None:
        self.done.append("wait")
        super().wait(handles, seconds)


class Ticking(Meters):
    """A clock that goes on with each look at it, and with each wait."""

    time = 0.0

    def now(self, wait: bool = True) -> float:
        self.time += 0.001
        return self.time


class Answering:
    """A replica that answers one request at a time, and none while another one is starting."""

    def __init__(self, launcher: Unlucky):
        self._launcher = launcher
        self._asked: list[Request] = []
        self._ready = False

    def send(self, message: ToReplica) -> None:
        if isinstance(message, Work):
            self._asked += message.requests

    def receive(self) -> list[FromReplica]:
        if not self._ready:
            self._ready = True
            return [Ready(4, 0.0)]
        if self._launcher.starting or not self._asked:
            return []
        key = self._asked.pop(0).key
        one = Answer(key, (), "", "stop", Timings(0.0, 0.0, 0.0), None, None, None, None, None)
        return [Started((key,)), Answers((one,), (), (), None, 0.0)]

    gone = False

    def end(self) -> End:
        raise AssertionError("it lives")

    def kill(self) -> None: ...


class Ending:
    """A replica that is ended from outside as soon as it is started."""

    def __init__(self, launcher: Unlucky):
        self._launcher = launcher
        launcher.starting = True

    def send(self, message: ToReplica) -> None: ...

    def receive(self) -> list[FromReplica]:
        return []

    gone = True

    def end(self) -> End:
        return End("was ended by SIGKILL", outside=True)

    def kill(self) -> None:
        self._launcher.starting = False


class Unlucky:
    """Starts a replica that answers, and one that never comes to."""

    places = ("here", "there")
    starting = False

    def __init__(self, meters: Ticking):
        self._meters = meters

    def start(self, number: int) -> Handle:
        return Ending(self) if number else Answering(self)

    def wait(self, handles: Iterable[Handle], seconds: float) -> None:
        self._meters.time += 1.0

    def close(self) -> None: ...


def begin(recipe: Path, there: dict[str, str] | None = None, model: dict[str, object] | None = None) -> Begin:
    plain = load_recipe(recipe).model_dump(exclude_none=True)
    return Begin({**versions(), **(there or {})}, plain, (str(ROOT), *sys.path), None, model)


def test_a_run_that_was_held_up_blames_no_replica(tmp_path: Path) -> None:
    """A process that was stopped, or a machine that was asleep."""
    recipe = job(tmp_path, engine={"replicas": 2}, scripted={"function": f"{MISBEHAVING}:slow"})
    meters = Jumping()
    engine = engine_of(recipe, meters=meters, patience=lambda: Patience(factor=1.0, least=20.0, first=20.0))
    try:
        done = 0
        for _ in engine.run(Feed(iter(scripted_requests(["x"] * 100)), 100)):
            done += 1
            meters.lost += 1000.0 if done == 20 else 0.0
        assert done == 100
        assert meters.num_events["replica_lost"] == 0
    finally:
        engine.close()


def test_what_ends_from_outside_is_no_fault_where_others_answered_meanwhile(tmp_path: Path) -> None:
    """Also where none answers between its start and its end, as on a busy machine."""
    meters = Ticking()
    recipe = job(tmp_path, engine={"replicas": 2})
    engine = ReplicatedEngine(Unlucky(meters), begin(recipe), meters, backoff=lambda: Backoff(tries=3, most=1.5))
    assert len(list(engine.run(Feed(iter(scripted_requests(["x"] * 40)), 40)))) == 40
    assert engine.standing() == "40, 0 (starting)"
    assert meters.num_events["replica_lost"] > 15


def test_replicas_load_side_by_side_and_each_is_shown(tmp_path: Path) -> None:
    recipe = job(tmp_path, engine={"replicas": 2}, scripted={"function": f"{MISBEHAVING}:dies"})
    launcher = Noting([Place("one"), Place("two")])
    engine = ReplicatedEngine(launcher, begin(recipe), Meters(), backoff=lambda: Backoff(most=0.0))
    try:
        assert launcher.done[:3] == ["start 0", "start 1", "wait"]
        engine.wait_for_all()
        assert engine.standing() == "0, 0"
        texts = ["poison", *["x"] * 7]
        assert len(list(engine.run(Feed(iter(scripted_requests(texts)), 8)))) == 8
        engine.wait_for_all()
        shown = re.findall(r"(\d+)(?: \(restarts (\d)\))?", engine.standing())
    finally:
        engine.close()
    assert sum(int(answered) for answered, _ in shown) == 7
    assert sum(int(restarts or 0) for _, restarts in shown) == 3


def test_another_version_is_said_before_anything_is_loaded(tmp_path: Path) -> None:
    recipe = job(tmp_path, engine={"replicas": 1})
    with pytest.raises(EnvironmentFault) as raised:
        ReplicatedEngine(LocalLauncher([Place("here")]), begin(recipe, {"torch": "1.0"}), Meters())
    here = versions()["torch"]
    assert str(raised.value) == f"{platform.node()} has torch {here} instead of 1.0: install the same on all machines"


def test_other_files_of_the_model_are_said_before_they_are_read(memory_recipe: Path, small_model: Path) -> None:
    section = load_recipe(memory_recipe).model

    def found(model: dict[str, object], recipe: Path = memory_recipe) -> str:
        said: list[FromReplica] = []

        def build(context: EngineContext) -> ScriptedEngine:
            raise AssertionError("the files are not those of the run")

        Worker(said.append).run(begin(recipe, model=model), build)
        assert isinstance(said[-1], Failed)
        assert said[-1].kind == "environment"
        return said[-1].reason

    other = {**model_identity(section), "sha256": "0"}
    assert f"on {platform.node()} is another than where the run was started (sha256 differ)" in found(other)
    away = memory_recipe.with_name("away.yaml")
    away.write_text(memory_recipe.read_text(encoding="utf-8").replace(str(section.name), str(section.name) + "-away"))
    assert f"{platform.node()} lacks the model: " in found(other, away)
