"""Replicas as child processes on this machine, each with devices or cores of its own."""

from __future__ import annotations

import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from batchchat.launch.base import End, Handle
from batchchat.launch.channel import Channel
from batchchat.launch.devices import Place
from batchchat.launch.messages import FromReplica, ToReplica

_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
_OF_A_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables by which libraries know that they belong to a group of processes, to which replicas do not belong."""
_LAST_BYTES = 4096


class LocalLauncher:
    """One process per place. Its devices are chosen in its environment, before it imports anything."""

    def __init__(self, places: Sequence[Place]):
        self._places = tuple(places)

    @property
    def places(self) -> tuple[str, ...]:
        return tuple(place.name for place in self._places)

    def start(self, number: int) -> LocalReplica:
        return LocalReplica(self._places[number])

    def wait(self, handles: Iterable[Handle], seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            for handle in handles:
                assert isinstance(handle, LocalReplica)
                events = selectors.EVENT_READ | (selectors.EVENT_WRITE if handle.channel.unsent else 0)
                selector.register(handle.channel, events, handle.channel)
            for key, events in selector.select(seconds):
                if events & selectors.EVENT_WRITE:
                    key.data.flush()

    def close(self) -> None: ...


class LocalReplica:
    """A child process and the way to it."""

    def __init__(self, place: Place):
        ours, its = socket.socketpair()
        self.channel = Channel(ours)
        self._said = tempfile.TemporaryFile()
        descriptor = its.fileno()
        cores = ",".join(map(str, place.cores or ()))
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "batchchat.launch.child", str(descriptor), str(os.getpid()), cores],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                pass_fds=(descriptor,),
                env={**_environment(), **place.environment},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: ToReplica) -> None:
        self.channel.send(message)

    def receive(self) -> list[FromReplica]:
        return self.channel.receive()

    @property
    def gone(self) -> bool:
        return self.channel.closed

    def end(self) -> End:
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:  # it closed its socket and goes on: of no use
            return End("closed its connection", outside=False)
        words = self._last_words()
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
            why = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
            return End(f"was ended by {name}{why}{words}", -code in _FROM_OUTSIDE)
        return End(f"ended with exit code {code}{words}", outside=False)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # a driver may hold it up: then the system ends it later
                self._process.wait(5)
        self.channel.close()
        self._said.close()

    def _last_words(self) -> str:
        """The last line on its standard error."""
        if self._said.closed:
            return ""
        self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, self._said.tell() - _LAST_BYTES))
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        return f" ({lines[-1].strip()[:300]})" if lines else ""


def _environment() -> dict[str, str]:
    """This process's, without what makes a library think that it was started with others."""
    mine = {name: value for name, value in os.environ.items() if name not in _OF_A_LAUNCHER}
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [mine.get("PYTHONPATH")])]
    return {**mine, "PYTHONPATH": os.pathsep.join(paths), "TQDM_DISABLE": "1"}  # a bar is no last word
