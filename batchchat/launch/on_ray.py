"""Replicas as Ray actors, on any machines of a cluster: the same messages, leases and credits as on one machine."""

from __future__ import annotations

import itertools
import logging
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from batchchat.errors import EnvironmentFault
from batchchat.launch.base import End, Handle
from batchchat.launch.messages import Beat, FromReplica, ToReplica

log = logging.getLogger("batchchat")

_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_LOOK_SECONDS = 5.0
"""How often one looks for nodes that came later."""
_SECONDS_BETWEEN_WARNINGS = 60.0
_FIRST_WARNING_SECONDS = 10.0
_DIED = "The actor died unexpectedly before finishing this task."
"""Ray says this of every actor that died, and then more."""


class RayLauncher:
    """One actor per replica. Without a number, as many as the cluster has accelerators for, at any time.

    Raises EnvironmentFault where Ray is not installed or no cluster answers at `address`.
    """

    def __init__(self, address: str, replicas: int | None, devices: int, cores: int):
        try:
            import ray
        except ImportError:
            raise EnvironmentFault(
                "engine.launcher is ray, which is not installed; type `pip install 'batchchat[ray]'`, or set "
                "engine.launcher=local"
            ) from None
        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            try:
                _require_answer(address)
                _join(ray, address)
            except (OSError, RuntimeError, ValueError) as error:
                raise EnvironmentFault(_not_joined(address, " ".join(str(error).split()))) from error
        self._wanted = replicas
        self._resources = {"GPU": devices} if devices else {"CPU": cores}
        self._known = replicas or 0
        self._looked = 0.0
        self._warn_at = time.monotonic() + _FIRST_WARNING_SECONDS
        if not self.places:
            self.close()
            raise EnvironmentFault(
                f"the Ray cluster at {address} has no accelerators, so engine.replicas: auto is none; set a number"
            )

    @property
    def places(self) -> tuple[str, ...]:
        if self._wanted is None and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            each = self._resources.get("GPU", 1)
            fit = sum(int(node.get("GPU", 0) // each) for node in self._nodes())
            self._known = max(self._known, fit)
        return ("ray",) * self._known

    def start(self, number: int) -> RayReplica:
        needs = {f"num_{name.lower()}s": count for name, count in self._resources.items()}
        actor = self._ray.remote(_Actor).options(max_concurrency=4, max_restarts=0, **needs).remote()
        return RayReplica(self._ray, actor)

    def wait(self, handles: Iterable[Handle], seconds: float) -> None:
        replicas = [handle for handle in handles if isinstance(handle, RayReplica)]
        if not replicas:
            time.sleep(seconds)
            return
        self._ray.wait([one.poll for one in replicas], num_returns=1, timeout=seconds, fetch_local=True)
        if time.monotonic() >= self._warn_at:
            self._warn_at = time.monotonic() + _SECONDS_BETWEEN_WARNINGS
            if not any(one.lived for one in replicas) and not self._has_room():
                log.warning("%s", self._no_room())

    def _has_room(self) -> bool:
        """Whether a node has what a replica asks for, be it in use or not."""
        return any(all(node.get(name, 0) >= n for name, n in self._resources.items()) for node in self._nodes())

    def _nodes(self) -> list[dict[str, float]]:
        """What each node has that lives."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _no_room(self) -> str:
        asked = ", ".join(f"{n} {name}" for name, n in self._resources.items())
        on_cpu = "; for replicas on CPUs set model.device_map=cpu" if "GPU" in self._resources else ""
        return f"no node of the Ray cluster has what a replica needs ({asked}), so the run waits for one{on_cpu}"

    def close(self) -> None:
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()


def _require_answer(address: str) -> None:
    """Raises OSError where nothing listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=_ANSWER_SECONDS).close()


def _join(ray: Any, address: str) -> None:
    """SIGTERM does to this process what it did before: Ray has a way of its own to end it."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _not_joined(address: str, words: str) -> str:
    if "Version mismatch" in words:
        return f"the Ray cluster at {address} has other versions ({words[:400]}); install the same on all machines"
    nobody = f"no Ray cluster answers at {address} ({words[:200]})"
    if address == "auto":
        nobody = "engine.ray_address is auto, and this machine belongs to no Ray cluster"
    return f"{nobody}; start one with `ray start --head`, or set engine.ray_address=HOST:PORT"


class RayReplica:
    """An actor and what it said. Calls of one caller may overtake each other, so messages are numbered."""

    def __init__(self, ray: Any, actor: Any):
        self._ray = ray
        self._actor = actor
        self._numbers = itertools.count()
        self.lived = False
        """It was heard of: a node had room for it."""
        self._signs = 0
        self._end: str | None = None
        self.poll = actor.poll.remote()

    def send(self, message: ToReplica) -> None:
        if self._end is None:
            self._actor.put.remote(next(self._numbers), message)

    def receive(self) -> list[FromReplica]:
        if self._end is not None:
            return []
        said: list[FromReplica] = []
        try:
            while self._ray.wait([self.poll], timeout=0)[0]:
                said += self._ray.get(self.poll)
                self.lived = True
                self.poll = self._actor.poll.remote()
        except self._ray.exceptions.RayError as error:
            self._end = _end_of(str(error))
        if not self.lived:  # it waits for a machine that has room for it, which is no silence
            self._signs -= 1
            said.append(Beat(self._signs, float("-inf"), 0.0))
        return said

    @property
    def gone(self) -> bool:
        return self._end is not None

    def end(self) -> End:
        return End(f"ended {self._end}", outside=True)

    def kill(self) -> None:
        if self._end is None:
            self._end = "with the run"
            self._ray.kill(self._actor, no_restart=True)


def _end_of(error: str) -> str:
    """Where an actor was and how it ended, from Ray's words: sentences, and between them what is known of it, each
    on a line that begins with a tab."""
    lines = error.splitlines()
    known = dict(line.strip().split(": ", 1) for line in lines if line.startswith("\t") and ": " in line)
    said = " ".join(" ".join(line for line in lines if not line.startswith("\t")).split())
    where = f"on {known['ip']} " if "ip" in known else ""
    return f"{where}({said.removeprefix(_DIED)[:300].strip()})"


class _Actor:
    """A replica in an actor's process."""

    def __init__(self) -> None:
        self._in: queue.SimpleQueue[ToReplica] = queue.SimpleQueue()
        self._out: queue.SimpleQueue[FromReplica] = queue.SimpleQueue()
        self._early: dict[int, ToReplica] = {}
        self._next = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, name="replica", daemon=True).start()

    def put(self, number: int, message: ToReplica) -> None:
        with self._lock:
            self._early[number] = message
            while self._next in self._early:
                self._in.put(self._early.pop(self._next))
                self._next += 1

    def poll(self) -> Sequence[FromReplica]:
        """What was said, as soon as there is something, or after a while."""
        said: list[FromReplica] = []
        try:
            said.append(self._out.get(timeout=_POLL_SECONDS))
            while True:
                said.append(self._out.get_nowait())
        except queue.Empty:
            return said

    def _serve(self) -> None:
        from batchchat.launch.worker import serve

        serve(self._messages(), self._out.put, lambda: None)

    def _messages(self) -> Iterator[ToReplica]:
        while True:
            yield self._in.get()
