"""Threads that carry requests to a server, each with a connection of its own.

A thread that waits for a server costs nothing, and a blocking connection takes half the time of an asynchronous one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial

from batchchat.chats import Message
from batchchat.engines.endpoint.connection import Connection
from batchchat.engines.endpoint.traffic import Job, Traffic

_LONGEST_WAIT = 3600.0
_LOOK_SECONDS = 0.5
"""How often it is looked for answers that take too long."""
_FAREWELL_SECONDS = 2.0


class Lines:
    """Carries what `traffic` says is to be sent. All methods but `close` are for one thread."""

    def __init__(
        self, traffic: Traffic, connect: Callable[[], Connection], clock: Callable[[], float], listens: bool = False
    ):
        """`listens`: whether `said` is asked for."""
        self._traffic = traffic
        self._listens = listens
        self._said: dict[Job, Message] = {}
        self._connect = connect
        self._clock = clock
        lock = threading.Lock()
        self._may_send = threading.Condition(lock)
        self._has_news = threading.Condition(lock)
        self._threads: list[threading.Thread] = []
        self._connections: list[Connection] = []
        self._closed = False
        self._looked = float("-inf")
        self._fault: Exception | None = None
        """Of our own making, in one of the threads."""

    @property
    def room(self) -> int:
        with self._may_send:
            return self._traffic.room

    def add(self, jobs: Iterable[Job]) -> None:
        with self._may_send:
            for job in jobs:
                self._traffic.add(job)
            self._open()
            self._may_send.notify()

    def wait(self) -> list[Job]:
        """The jobs that are done, as soon as there are any; empty where nothing more will come of what was added, where
        something was said, and now and then."""
        traffic = self._traffic
        with self._has_news:
            if not traffic.done and not self._said and (traffic.in_flight or (traffic.waiting and not traffic.stopped)):
                self._has_news.wait(_LOOK_SECONDS)
                self._cut_late()
            if self._fault is not None:
                raise self._fault
            done = list(traffic.done)
            traffic.done.clear()
            return done

    def said(self) -> list[tuple[Job, Message]]:
        """What is said so far to jobs in flight, where that is news."""
        with self._has_news:
            said = list(self._said.items())
            self._said.clear()
            return said

    def end(self) -> None:
        """See `Traffic.end`."""
        with self._may_send:
            self._traffic.end()

    def pay(self, job: Job, cost: float) -> None:
        """See `Traffic.pay`."""
        with self._may_send:
            self._traffic.pay(job, cost)
            self._may_send.notify()

    def close(self) -> None:
        """Give up what is in flight, and end all threads."""
        with self._may_send:
            self._closed = True
            self._may_send.notify_all()
            for connection in self._connections:
                connection.abandon()
        deadline = self._clock() + _FAREWELL_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - self._clock()))

    def _open(self) -> None:
        """As many threads as may send; called with the lock held."""
        wanted = min(self._traffic.concurrency.limit, self._traffic.in_flight + self._traffic.waiting)
        while len(self._threads) < wanted:
            connection = self._connect()
            thread = threading.Thread(target=self._carry, args=(connection,), daemon=True, name="endpoint")
            self._connections.append(connection)
            self._threads.append(thread)
            thread.start()

    def _carry(self, connection: Connection) -> None:
        try:
            while (job := self._next()) is not None:
                hear = partial(self._hear, job) if self._listens else None
                attempt = connection.post(job.body, job.request.prompt is None, hear)
                with self._may_send:
                    if self._closed:
                        return
                    self._said.pop(job, None)
                    self._traffic.settle(job, attempt, datetime.now(UTC))
                    self._open()
                    self._has_news.notify()
        except Exception as fault:
            with self._has_news:
                self._fault = fault
                self._has_news.notify()
        finally:
            connection.close()

    def _hear(self, job: Job, message: Message) -> None:
        with self._has_news:
            self._said[job] = message
            self._has_news.notify()

    def _next(self) -> Job | None:
        """The next job for this thread, as soon as there is one; None at the end."""
        with self._may_send:
            while not self._closed:
                found = self._traffic.take(self._clock())
                if isinstance(found, Job):
                    if self._traffic.waiting:
                        self._may_send.notify()
                    return found
                self._may_send.wait(min(found, _LONGEST_WAIT))
            return None

    def _cut_late(self) -> None:
        """Called often; looks now and then."""
        now = self._clock()
        if now < self._looked + _LOOK_SECONDS:
            return
        self._looked = now
        latest = now - self._traffic.options.answer_seconds
        for connection in self._connections:
            since = connection.busy_since
            if since is not None and since < latest:
                connection.cut(f"the answer was not there after {self._traffic.options.answer_seconds:g} s")
