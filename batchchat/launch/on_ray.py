"""Replicas as Ray actors, on any machines of a cluster: the same messages, leases and credits as on one machine."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from batchchat.errors import EnvironmentFault
from batchchat.launch.base import End, Handle
from batchchat.launch.messages import Beat, FromReplica, ToReplica

_POLL_SECONDS = 1.0
_ANSWER_SECONDS = 10.0
_LOOK_SECONDS = 5.0
"""How often one looks for nodes that came later."""


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
                ray.init(address=address, log_to_driver=False, configure_logging=False)
            except (OSError, RuntimeError, ValueError) as error:
                words = " ".join(str(error).split())[:200]
                raise EnvironmentFault(
                    f"no Ray cluster answers at {address} ({words}); start one with `ray start --head`, or set "
                    "engine.ray_address"
                ) from error
        self._wanted = replicas
        self._resources = {"num_gpus": devices} if devices else {"num_cpus": cores}
        self._known = replicas or 0
        self._looked = 0.0
        if not self.places:
            self.close()
            raise EnvironmentFault(
                f"the Ray cluster at {address} has no accelerators, so engine.replicas: auto is none; set a number"
            )

    @property
    def places(self) -> tuple[str, ...]:
        if self._wanted is None and time.monotonic() - self._looked > _LOOK_SECONDS:
            self._looked = time.monotonic()
            gpus = self._ray.cluster_resources().get("GPU", 0)
            self._known = max(self._known, int(gpus // max(1, self._resources.get("num_gpus", 1))))
        return ("ray",) * self._known

    def start(self, number: int) -> RayReplica:
        actor = self._ray.remote(_Actor).options(max_concurrency=4, max_restarts=0, **self._resources).remote()
        return RayReplica(self._ray, actor)

    def wait(self, handles: Iterable[Handle], seconds: float) -> None:
        polls = [handle.poll for handle in handles if isinstance(handle, RayReplica)]
        if polls:
            self._ray.wait(polls, num_returns=1, timeout=seconds, fetch_local=True)
        else:
            time.sleep(seconds)

    def close(self) -> None:
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()


def _require_answer(address: str) -> None:
    """Raises OSError where nothing listens at `host:port`: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.rpartition("/")[2], int(port)), timeout=_ANSWER_SECONDS).close()


class RayReplica:
    """An actor and what it said. Calls of one caller may overtake each other, so messages are numbered."""

    def __init__(self, ray: Any, actor: Any):
        self._ray = ray
        self._actor = actor
        self._numbers = itertools.count()
        self._lived = False
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
                self._lived = True
                self.poll = self._actor.poll.remote()
        except self._ray.exceptions.RayError as error:
            self._end = " ".join(str(error).split())[:300]
        if not self._lived:  # it waits for a machine that has room for it, which is no silence
            self._signs -= 1
            said.append(Beat(self._signs, float("-inf"), 0.0))
        return said

    @property
    def gone(self) -> bool:
        return self._end is not None

    def end(self) -> End:
        return End(f"ended ({self._end})", outside=True)

    def kill(self) -> None:
        if self._end is None:
            self._end = "it was ended by the run"
            self._ray.kill(self._actor, no_restart=True)


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
