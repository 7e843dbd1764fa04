"""Processes of a run are killed while it goes on, and it must come to what a calm run comes to."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil

from scripts.many_devices.job import Job
from scripts.many_devices.ways import CALM, REPLICAS, on_ray, simulated_cluster
from scripts.parts import Unlike
from scripts.stored import num_turns

_LOCAL = "batchchat.launch.child"
_ON_RAY = "ray::_Actor"
_POLL_SECONDS = 0.1
_SHARE_LOADED = 0.75

Alive = Callable[[], list[psutil.Process]]
"""The replicas that live now."""


class Kills:
    """Kills of one run, `seconds` apart on average, at moments and of victims that a seed draws."""

    def __init__(self, job: Job, name: str, seconds: float, seed: int):
        self._job = job
        self._name = name
        self._seconds = seconds
        self._random = random.Random(seed)
        self.replicas = 0
        """Replicas that were killed, each of which is to be started again."""

    def local(self, count: int) -> float:
        """Kill `count` replicas, then the run itself, then let it finish. Returns the seconds."""
        began = time.monotonic()
        process = self._job.start(self._name, f"engine.replicas={REPLICAS}")
        self._kill_replicas(process, count, lambda: _local_replicas(process))
        left = _local_replicas(process)
        process.kill()
        process.wait()
        _wait_until(lambda: all(map(_is_gone, left)), "a replica outlived its run")
        self._finish(self._job.start(self._name, f"engine.replicas={REPLICAS}"))
        return time.monotonic() - began

    def on_ray(self, count: int) -> float:
        """Kill `count` replicas, then a node, then the run itself, then let it finish. Returns the seconds."""
        began = time.monotonic()
        with simulated_cluster() as cluster:
            arguments = on_ray(cluster)
            process = self._job.start(self._name, *arguments)
            self._kill_replicas(process, count, _ray_replicas)
            self._remove(cluster, min(cluster.worker_nodes, key=lambda node: node.node_id))
            self._wait_for_all(process, _ray_replicas)
            process.kill()
            process.wait()
            _wait_until(lambda: not _ray_replicas(), "an actor outlived its run")
            self._finish(self._job.start(self._name, *arguments))
        return time.monotonic() - began

    def _kill_replicas(self, process: subprocess.Popen[bytes], count: int, alive: Alive) -> None:
        """One after the other; returns when all live again."""
        while self.replicas < count:
            self._wait_for_answers(process)
            self._await(process, lambda: bool(alive()), "no replica was started again")
            victim = self._victim(alive())
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
            self.replicas += 1
            _wait_until(partial(_is_gone, victim), "a replica outlived its end")
        self._wait_for_all(process, alive)

    def _remove(self, cluster: Any, node: Any) -> None:
        """A node is gone, with all that it ran."""
        raylets = [psutil.Process(one.process.pid) for one in node.all_processes["raylet"]]
        ran = [child for raylet in raylets for child in raylet.children(recursive=True)]
        cluster.remove_node(node, allow_graceful=False)
        _wait_until(lambda: all(map(_is_gone, ran)), "a process outlived its node")

    def _wait_for_answers(self, process: subprocess.Popen[bytes]) -> None:
        """For the seconds between two kills, and until something was answered."""
        run = self._job.folder / self._name
        known = num_turns(run)
        self._pause(process)
        self._await(process, lambda: num_turns(run) > known, "nothing was answered any more")

    def _victim(self, alive: list[psutil.Process]) -> psutil.Process:
        """Any of them, but mostly one that is loaded: a replica that never comes to answer is given up, as it should
        be."""
        loading = self._job.report(CALM)["phases_seconds"]["load"]
        loaded = [one for one in alive if time.time() - one.create_time() > 2 * loading]
        return self._random.choice(loaded if loaded and self._random.random() < _SHARE_LOADED else alive)

    def _wait_for_all(self, process: subprocess.Popen[bytes], alive: Alive) -> None:
        """Until all replicas live, and what is known of them is in the store, with the next answer."""
        self._await(process, lambda: len(alive()) == REPLICAS, "a replica was not started again")
        self._wait_for_answers(process)

    def _pause(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + self._seconds * self._random.uniform(0.5, 1.5)
        self._await(process, lambda: time.monotonic() > until, "")

    def _await(self, process: subprocess.Popen[bytes], true: Callable[[], bool], otherwise: str) -> None:
        """Wait for what comes while the run goes on."""
        _wait_until(lambda: process.poll() is not None or true(), otherwise)
        if process.poll() is not None:
            raise Unlike(
                f"{self._name} ended with {process.returncode} after {self.replicas} kills: if it is done, give it "
                "more to do with generation.samples=N"
            )

    def _finish(self, process: subprocess.Popen[bytes]) -> None:
        if process.wait():
            raise Unlike(f"{self._name} ended with {process.returncode}: read {self._job.folder / self._name}.log")


def _local_replicas(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        children = psutil.Process(process.pid).children()
        return [one for one in children if _lives(one) and _LOCAL in one.cmdline()]
    except psutil.Error:
        return []


def _ray_replicas() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if _lives(process) and any(word.startswith(_ON_RAY) for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _is_gone(process: psutil.Process) -> bool:
    return not _lives(process)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _wait_until(true: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + 300
    while not true():
        if time.monotonic() > until:
            raise Unlike(otherwise)
        time.sleep(_POLL_SECONDS)
