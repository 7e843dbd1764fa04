"""Which request is sent when. Neither clock, thread nor network: whoever uses it says what time it is."""

from __future__ import annotations

import heapq
import random
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

from batchchat.chats import Request
from batchchat.engines.endpoint.concurrency import Concurrency
from batchchat.engines.endpoint.cost import Ledger
from batchchat.engines.endpoint.options import EndpointOptions
from batchchat.engines.endpoint.pace import Pace
from batchchat.engines.endpoint.retry import Again, Answered, Attempt, Refused, Stop, Verdict, back_off, judge

_REFUSAL_SECONDS = 1.0
"""How long nothing is sent after a refusal that does not say how long it holds."""


@dataclass(eq=False)
class Job:
    """A request on its way."""

    request: Request
    body: bytes
    highest_cost: float
    queued: float
    tokens: int = 0
    """That it may take, for the ceiling of tokens a minute."""
    attempts: int = 0
    first_sent: float | None = None
    last: Attempt | None = None
    verdict: Verdict | None = None


@dataclass(eq=False)
class Traffic:
    """Jobs that wait, are in flight, or are done: `done` are those whose verdict is final, in the order of their ends.
    `stopped` says why nothing more is sent."""

    options: EndpointOptions
    ledger: Ledger
    now: float = 0.0
    seed: int = 0
    done: deque[Job] = field(default_factory=deque)
    stopped: str | None = None
    num_retries: int = 0
    num_refusals: int = 0

    def __post_init__(self) -> None:
        options = self.options
        self.concurrency = Concurrency(options.max_in_flight, self.now)
        self._flying: set[Job] = set()
        self._paces = (Pace(options.requests_per_minute, self.now), Pace(options.tokens_per_minute, self.now))
        self._fresh: deque[Job] = deque()
        self._later: list[tuple[float, int, Job]] = []
        """Jobs that are sent again, by the time from which they may be."""
        self._order = count()
        self._paused_until = self.now
        self._suspects: list[Job] = []
        """Jobs without a retry left, with no answer to anything that was sent since."""
        self._chance = random.Random(self.seed)

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    @property
    def waiting(self) -> int:
        """Jobs that are neither in flight nor done."""
        return len(self._fresh) + len(self._later)

    @property
    def room(self) -> int:
        """Jobs that may be added, so that one is always at hand when another ends."""
        return 0 if self.stopped else max(0, 2 * self.concurrency.limit - len(self._fresh) - self.in_flight)

    @property
    def broke(self) -> bool:
        """Whether what waits costs more than is left, with nothing in flight that could cost less than set aside."""
        job = self._next_job(float("inf"))
        return job is not None and not self.in_flight and not self.ledger.affords(job.highest_cost)

    def add(self, job: Job) -> None:
        self._fresh.append(job)

    def take(self, now: float) -> Job | float:
        """The job to be sent now, or seconds until there may be one (infinite: not before something else happens)."""
        if self.stopped or self.in_flight >= self.concurrency.limit:
            return float("inf")
        job = self._next_job(now)
        due = self._later[0][0] - now if self._later else float("inf")
        pause = max(self._paused_until - now, *(pace.wait(now) for pace in self._paces))
        if job is None:
            return max(pause, due)
        if pause > 0:
            return pause
        if not self.ledger.affords(job.highest_cost):
            return float("inf")
        if self._fresh and self._fresh[0] is job:
            self._fresh.popleft()
        else:
            heapq.heappop(self._later)
        self._flying.add(job)
        job.attempts += 1
        job.first_sent = now if job.first_sent is None else job.first_sent
        self.ledger.set_aside(job.highest_cost)
        for pace, units in zip(self._paces, (1, job.tokens), strict=True):
            pace.sent(now, units)
        return job

    def settle(self, job: Job, attempt: Attempt, moment: datetime) -> None:
        """An attempt ended, at `attempt.ended` and, on the world's clock, at `moment`."""
        now = attempt.ended
        verdict = judge(attempt, self.options, moment, is_chat=job.request.prompt is None)
        job.last, job.verdict = attempt, verdict
        flying = self.in_flight
        self._flying.discard(job)
        match verdict:
            case Answered():  # what it cost is known when it is read: see `pay`
                self.concurrency.answered(now, flying)
                self._finish_suspects(attempt.sent)
                self.done.append(job)
            case Refused():
                self.ledger.settle(job.highest_cost, unconfirmed=job.highest_cost if verdict.paid else 0.0)
                self.concurrency.answered(now, flying)
                self._finish_suspects(attempt.sent)
                self.done.append(job)
            case Again():
                self.ledger.settle(job.highest_cost, unconfirmed=job.highest_cost if verdict.reached else 0.0)
                self._slow_down(attempt, verdict)
                self._send_again(job, now, verdict)
            case Stop():
                self.ledger.settle(job.highest_cost)
                self.stopped = self.stopped or verdict.reason

    def pay(self, job: Job, cost: float) -> None:
        """What a job that was answered cost."""
        self.ledger.settle(job.highest_cost, spent=cost)

    def abandon(self) -> None:
        """Nobody waits for what is in flight or done any more, and the server may charge it."""
        for job in (*self._flying, *(job for job in self.done if isinstance(job.verdict, Answered))):
            self.ledger.settle(job.highest_cost, unconfirmed=job.highest_cost)
        self._flying.clear()
        self.done.clear()

    def end(self) -> None:
        """Nothing waits or is in flight, and nothing more will come: what ran out of retries failed by itself."""
        self._finish_suspects(float("inf"))

    def _next_job(self, now: float) -> Job | None:
        """What waited once before goes first."""
        if self._later and self._later[0][0] <= now:
            return self._later[0][2]
        return self._fresh[0] if self._fresh else None

    def _slow_down(self, attempt: Attempt, verdict: Again) -> None:
        now = attempt.ended
        if verdict.limit:
            self.num_refusals += 1
            self.concurrency.refused(now, attempt.sent)
        else:
            self.concurrency.troubled(now)
        pause = verdict.pause if verdict.pause is not None else _REFUSAL_SECONDS if verdict.limit else 0.0
        self._paused_until = max(self._paused_until, now + pause)

    def _send_again(self, job: Job, now: float, verdict: Again) -> None:
        if job.attempts <= self.options.retries:
            self.num_retries += 1
            due = now + back_off(job.attempts, self._chance.random())
            heapq.heappush(self._later, (due, next(self._order), job))
            return
        job.verdict = Refused(f"{verdict.reason} (sent {job.attempts} times)")
        self._suspects.append(job)
        if verdict.gone or len(self._suspects) == self.options.stop_after:
            self.stopped = self.stopped or (
                f"the server answers nothing but errors: {verdict.reason}; run the same command again when it is well"
            )

    def _finish_suspects(self, well_at: float) -> None:
        """The server was well enough to answer what was sent at `well_at`: what had failed by then failed by itself."""
        suspects, self._suspects = self._suspects, []
        for job in suspects:
            assert job.last is not None
            (self.done if job.last.ended <= well_at else self._suspects).append(job)
