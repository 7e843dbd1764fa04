"""One replica as the run knows it: its process, if it has one now, and what it did so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from batchchat.chats import Completion, Request, Timings
from batchchat.engines.facts import AnyEngineFacts, PhaseWork, ReplicaFacts, WorkDone
from batchchat.launch.base import Handle
from batchchat.launch.messages import Answer, Finish
from batchchat.launch.patience import Backoff, Patience


@dataclass
class Member:
    """Times are in seconds on the run's clock."""

    number: int
    place: str
    patience: Patience
    backoff: Backoff
    handle: Handle | None = None
    ready: bool = False
    begun: float = 0.0
    heard: float = 0.0
    """When the last sign of work came."""
    signs: int = -1
    offset: float = 0.0
    """From its clock to the run's: the least that any message took longer than its clock says."""
    start_at: float | None = 0.0
    """When it is to be started; None where it runs, or was given up."""
    resting: bool = False
    """There is no work for it: it was let go, or never begun."""
    last_end: str = ""
    ended_at: float = float("-inf")
    answered: int = 0
    restarts: int = 0
    last_answer: float | None = None
    lost: int = 0
    loading_seconds: float | None = None
    ready_seconds: float = 0.0
    ready_since: float = 0.0
    idle_seconds: float = 0.0
    idle_before: float = 0.0
    """Of its earlier processes."""
    facts: AnyEngineFacts | None = None
    """What its process said at the end."""
    earlier: list[AnyEngineFacts] = field(default_factory=list)
    """What those said that were let go before it."""
    host_peak_bytes: int | None = None
    device_peak_bytes: int | None = None

    @property
    def given_up(self) -> bool:
        return self.handle is None and self.start_at is None and not (self.ready or self.resting)

    @property
    def held(self) -> bool:
        """It runs or is to be started."""
        return not (self.resting or self.given_up)

    @property
    def finishing(self) -> bool:
        """It was told that nothing more will come, and has not said what it did."""
        return self.handle is not None and (self.ready or self.resting) and self.facts is None

    def started(self, handle: Handle, now: float) -> None:
        self.handle, self.ready, self.start_at = handle, False, None
        self.begun = self.heard = now
        self.signs, self.offset = -1, float("inf")
        self.earlier += [] if self.facts is None else [self.facts]
        self.facts = None

    def is_ready(self, now: float) -> None:
        self.ready, self.ready_since = True, now
        if self.loading_seconds is None:
            self.loading_seconds = now - self.begun

    def sign(self, now: float) -> None:
        """It did something."""
        self.patience.heard_after(now - self.heard)
        self.heard = now

    def ended(self, reason: str, now: float, blame: bool = True) -> None:
        """Its process is no more; whether and when the next is started depends on how often that happened in a row, and
        how often it was to `blame`."""
        self._work_no_more(now)
        self.gone()
        self.last_end, self.ended_at = reason, now
        wait = self.backoff.ended(blame)
        self.start_at = None if wait is None or self.resting else now + wait

    def rest(self, now: float) -> None:
        """There is no work for it: one that is ready says what it did and ends, another one is ended."""
        if self.ready and self.handle is not None:
            self.handle.send(Finish())
        else:
            self.gone()
        self._work_no_more(now)
        self.resting, self.start_at, self.begun = True, None, 0.0

    def wake(self, now: float) -> None:
        """There is work again."""
        self.resting, self.start_at = False, now

    def gone(self) -> None:
        """Its process is no more, or shall be."""
        if self.handle is not None:
            self.handle.kill()
        self.handle = None

    def _work_no_more(self, now: float) -> None:
        if self.ready:
            self.ready_seconds += now - self.ready_since
        self.idle_before, self.idle_seconds = self.idle_before + self.idle_seconds, 0.0
        self.ready = False

    def completion(self, request: Request, answer: Answer) -> Completion:
        """An answer with its request, its times on the run's clock."""
        times = answer.timings
        return Completion(
            request=request,
            token_ids=answer.token_ids,
            text=answer.text,
            finish_reason=answer.finish_reason,
            timings=Timings(times.queued + self.offset, times.started + self.offset, times.finished + self.offset),
            logprobs=answer.logprobs,
            error=answer.error,
            usage=answer.usage,
            message=answer.message,
            note=answer.note,
        )

    def describe(self, now: float, last: float | None = None) -> ReplicaFacts:
        """For the report; `last` is when the last answer of all replicas came."""
        working = self.ready_seconds + (now - self.ready_since if self.ready else 0.0)
        idle = self.idle_before + self.idle_seconds
        told: dict[str, Any] = {}
        if self.loading_seconds is not None:
            told["loading_seconds"] = round(self.loading_seconds, 3)
        if last is not None and self.last_answer is not None:
            told["idle_at_end"] = round(last - self.last_answer, 3)
        if self.given_up:
            told["given_up"] = self.last_end
        return ReplicaFacts(
            place=self.place,
            answered=self.answered,
            busy=round(min(1.0, max(0.0, 1 - idle / working)), 4) if working else None,
            restarts=self.restarts,
            lost=self.lost,
            host_peak_bytes=self.host_peak_bytes,
            device_peak_bytes=self.device_peak_bytes,
            **told,
        )


def whole_facts(members: Sequence[Member], now: float) -> AnyEngineFacts | None:
    """What the engine of all replicas says of itself: that of one, its counts over all. None where none could say."""
    told = [facts for member in members for facts in (*member.earlier, member.facts) if facts is not None]
    if not told:
        return None
    first = told[0]
    changed: dict[str, object] = {
        name: sum(getattr(facts, name) for facts in told) for name in _SUMS if getattr(first, name, None) is not None
    }
    changed |= {name: max(getattr(facts, name) for facts in told) for name in _PEAKS if hasattr(first, name)}
    works = [facts.work for facts in told if facts.work is not None]
    if works:
        changed["work"] = WorkDone(**{phase: _sum([getattr(work, phase) for work in works]) for phase in _PHASES})
    last = max((member.last_answer for member in members if member.last_answer is not None), default=None)
    replicas = tuple(member.describe(now, last) for member in members)
    return first.model_copy(update={**changed, "replicas": replicas})


def _sum(phases: Sequence[PhaseWork]) -> PhaseWork:
    return PhaseWork(**{name: sum(getattr(phase, name) for phase in phases) for name in PhaseWork.model_fields})


_PHASES = ("prefill", "decode")
_SUMS = ("prompt_tokens_reused", "preempted", "steps_replayed")
_PEAKS = ("kv_peak_tokens",)
