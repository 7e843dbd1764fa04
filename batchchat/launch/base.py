"""The contract of a launcher: who starts replicas, and how one talks to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from batchchat.launch.messages import FromReplica, ToReplica


@dataclass(frozen=True)
class End:
    """How a replica ended, in words; `outside` where something else than its own work may be the cause."""

    reason: str
    outside: bool


class Handle(Protocol):
    """One started replica, as the run sees it. Nothing here blocks."""

    def send(self, message: ToReplica) -> None: ...

    def receive(self) -> list[FromReplica]:
        """What has come by now."""
        ...

    @property
    def gone(self) -> bool:
        """It is no more, and everything that it said was received."""
        ...

    def end(self) -> End:
        """How it ended; of one that is gone."""
        ...

    def kill(self) -> None:
        """End it now, whatever it does. It is not asked."""
        ...


class Launcher(Protocol):
    """Starts the replicas of a run, by their numbers from 0."""

    @property
    def places(self) -> tuple[str, ...]:
        """Where each replica computes, in words. More may come while the run goes on."""
        ...

    def start(self, number: int) -> Handle: ...

    def wait(self, handles: Iterable[Handle], seconds: float) -> None:
        """Until one of them has said something, at most so long."""
        ...

    def close(self) -> None: ...
