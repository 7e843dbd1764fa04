"""Engines that drain one feed side by side: the model's, that of the model which plays the user, and tools."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing

from batchchat.chats import Completion, Request, Writer
from batchchat.engines.base import Engine, PaidEngine
from batchchat.engines.facts import AnyEngineFacts
from batchchat.schedule import Feed


class _Abandoned(BaseException):
    """The run was left early: raised in an engine that looks at its feed."""


class _Lane:
    """One engine in a thread of its own, on a feed that is filled from outside."""

    def __init__(self, engine: Engine, room: int, done: queue.SimpleQueue[tuple[_Lane, Completion | BaseException]]):
        self.room = room
        """Requests that the engine may have at once, those that wait included."""
        self.given = 0
        self._engine = engine
        self._done = done
        self._abandoned = False
        self._feed = Feed(iter(()), 1, open_ended=True, on_take=self._look)
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def give(self, request: Request) -> None:
        self.given += 1
        self._feed.put(request)

    def finish(self) -> None:
        """Nothing more will come: wait until the engine returns."""
        self._feed.close()
        self._thread.join()

    def abandon(self) -> None:
        """Give up what is in flight."""
        self._abandoned = True
        self.finish()

    def _look(self, count: int) -> None:
        if self._abandoned:
            raise _Abandoned

    def _run(self) -> None:
        try:
            with closing(self._engine.run(self._feed)) as completions:  # type: ignore[type-var]
                for completion in completions:
                    self._done.put((self, completion))
                    self._look(0)
        except _Abandoned:
            pass
        except BaseException as error:  # it is raised where the run is
            self._done.put((self, error))


class EnginesTogether:
    """Each request goes to the engine of who writes it (`Request.writer`), the model's where there is none; all of them
    compute at the same time.

    An engine has at most `rooms[writer]` requests at once, so that what is ready stays in the run's feed. Only the
    thread that calls `run` looks at that feed.
    """

    def __init__(self, engines: Mapping[Writer, Engine], rooms: Mapping[Writer, int]):
        self._engines = dict(engines)
        self._rooms = rooms

    def run(self, feed: Feed) -> Iterator[Completion]:
        done: queue.SimpleQueue[tuple[_Lane, Completion | BaseException]] = queue.SimpleQueue()
        lanes = {writer: _Lane(engine, self._rooms[writer], done) for writer, engine in self._engines.items()}
        try:
            while True:
                if done.empty():  # what is done is stored together, before more is handed out
                    self._hand_out(feed, lanes)
                    if not any(lane.given for lane in lanes.values()) and feed.exhausted:
                        break
                lane, found = done.get()
                if isinstance(found, BaseException):
                    raise found
                lane.given -= 1
                yield found
            for lane in lanes.values():
                lane.finish()
            while not done.empty():
                _, found = done.get()
                assert isinstance(found, BaseException), "a completion for each request was counted"
                raise found
        finally:
            for lane in lanes.values():
                lane.abandon()

    def describe(self) -> AnyEngineFacts:
        """The facts of the model's engine; see `describe_user`."""
        return self._engines["assistant"].describe()

    def describe_user(self) -> AnyEngineFacts | None:
        """Those of the engine that plays the user; None where the model's does."""
        return self._engines["user"].describe() if "user" in self._engines else None

    @property
    def spent(self) -> float | None:
        """What they cost so far; None where no prices are known."""
        known = [engine.spent for engine in self._engines.values() if isinstance(engine, PaidEngine)]
        costs = [cost for cost in known if cost is not None]
        return sum(costs) if costs else None

    @property
    def standing(self) -> Callable[[], str] | None:
        """How the replicas of the model's engine are, where it has some."""
        found: Callable[[], str] | None = getattr(self._engines["assistant"], "standing", None)
        return found

    def close(self) -> None:
        for engine in self._engines.values():
            engine.close()

    @staticmethod
    def _hand_out(feed: Feed, lanes: Mapping[Writer, _Lane]) -> None:
        room = {writer: lane.room - lane.given for writer, lane in lanes.items()}
        if not any(count > 0 for count in room.values()):
            return

        def pick(ready: list[Request]) -> tuple[list[Request], list[Request]]:
            chosen: list[Request] = []
            rest: list[Request] = []
            for request in ready:
                lane = request.writer if request.writer in room else "assistant"
                fits = room[lane] > 0
                room[lane] -= fits
                (chosen if fits else rest).append(request)
            return chosen, rest

        for request in feed.choose(pick):
            lanes[request.writer if request.writer in lanes else "assistant"].give(request)
