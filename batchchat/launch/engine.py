"""An engine like any other that has its requests answered by replicas, whatever happens to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from batchchat.chats import Completion, Request, Timings
from batchchat.engines import Budget, EngineFacts, EngineMeter
from batchchat.engines.facts import AnyEngineFacts
from batchchat.errors import EnvironmentFault, UsageError
from batchchat.launch.base import Launcher
from batchchat.launch.leases import Leases
from batchchat.launch.member import Member, whole_facts
from batchchat.launch.messages import (
    Answers,
    Beat,
    Begin,
    Ended,
    Failed,
    Finish,
    FromReplica,
    Ready,
    Recall,
    Returned,
    Started,
    Work,
)
from batchchat.launch.patience import Backoff, Patience
from batchchat.launch.scaling import Scaling
from batchchat.schedule import Feed

log = logging.getLogger("batchchat")

_WAIT_SECONDS = 0.25
_PAUSE_SECONDS = 5.0
"""A run that did nothing for so long was held up itself, and does not blame the replicas."""
_FAREWELL_SECONDS = 30.0
_RESTARTS = "replica_restarts"
"""The name under which the count of all sessions is kept."""

NewPatience = Callable[[], Patience]
NewBackoff = Callable[[], Backoff]


class ReplicatedEngine:
    """Hands the feed's requests to replicas by credit and gives back what they answer.

    A replica that ends, closes its connection or is silent for too long loses its requests to the others and is
    started again. Raises EnvironmentFault where none can be kept alive.
    """

    def __init__(
        self,
        launcher: Launcher,
        begin: Begin,
        meter: EngineMeter,
        budget: Budget | None = None,
        kept: MutableMapping[str, Any] | None = None,
        scaling: Scaling | None = None,
        patience: NewPatience = Patience,
        backoff: NewBackoff = Backoff,
    ):
        self._launcher = launcher
        self._begin = begin
        self._meter = meter
        self._budget = budget or Budget()
        self._kept = {} if kept is None else kept
        self._scaling = scaling
        self._rows = 1
        self._patience = patience
        self._backoff = backoff
        self._leases = Leases()
        self._members: list[Member] = []
        self._looked = meter.now()
        """When the replicas were last looked after."""
        try:
            while not any(member.ready for member in self._members):
                for _ in self._look():
                    ...
        except BaseException:
            self.close()
            raise

    def wait_for_all(self) -> None:
        """Until every replica is ready."""
        while not all(member.ready or not member.held for member in self._members):
            for _ in self._look():
                ...

    def run(self, feed: Feed) -> Iterator[Completion]:
        try:
            while True:
                self._hand_out(feed)
                self._scale(feed)
                if not self._leases.outstanding and feed.exhausted:
                    return
                for completion, again in self._look():
                    if completion is not None:
                        yield completion
                    for request in again:
                        feed.put(request)
        finally:
            if self._leases.outstanding:  # left early: what is in flight is given up
                for member in self._members:
                    if member.ready:
                        self._leases.leave(member.number)
                        member.ended("was ended with the run", self._meter.now())
                        member.backoff.answered()  # that was no fault of its own
                self._leases = Leases()

    def describe(self) -> AnyEngineFacts:
        for member in self._members:
            if member.handle is not None and member.ready:
                member.handle.send(Finish())
        until = self._meter.now() + _FAREWELL_SECONDS
        while any(member.finishing for member in self._members) and self._meter.now() < until:
            for _ in self._look(start=False):
                ...
        now = self._meter.now()
        told = whole_facts(self._members, now)
        if told is None:
            replicas = tuple(member.describe(now) for member in self._members)
            note = "no replica lived to say what it computed with"
            told = EngineFacts(engine="replicas", note=note, replicas=replicas)
        return told.model_copy(update={"replica_restarts": self._kept.get(_RESTARTS, 0)})

    def standing(self) -> str:
        """How the replicas are, in one short line."""
        return ", ".join(f"{member.answered:,}{_state(member)}" for member in self._members)

    def close(self) -> None:
        for member in self._members:
            member.gone()

    # --- replicas --------------------------------------------------------------------------------------------------

    def _look(self, start: bool = True) -> Iterator[tuple[Completion | None, list[Request]]]:
        """One look after all replicas: what they say, who ended, who is to be started. Yields what came of requests:
        a completion, or requests that must be handed out anew."""
        if start:
            self._start()
        alive = [member for member in self._members if member.handle is not None]
        self._launcher.wait([member.handle for member in alive if member.handle is not None], _WAIT_SECONDS)
        now = self._meter.now()
        held_up, self._looked = now - self._looked > _PAUSE_SECONDS, now
        for member in alive:
            if held_up:
                member.heard = now
            if member.handle is None:
                continue
            for message in member.handle.receive():
                yield from self._hear(member, message, now)
            if member.handle is None:
                continue
            silent = now - member.heard > member.patience.limit
            if member.facts is not None or (member.resting and (member.handle.gone or silent)):
                member.gone()
            elif member.handle.gone:
                end = member.handle.end()
                yield from self._lose(member, end.reason, now, outside=end.outside)
            elif silent:
                words = f"gave no sign for {now - member.heard:.0f} s, so it was taken to hang"
                member.patience.was_wrong_perhaps()
                yield from self._lose(member, words, now)

    def _start(self) -> None:
        now = self._meter.now()
        for number in range(len(self._members), len(self._launcher.places)):
            place = self._launcher.places[number]
            member = Member(number, place, self._patience(), self._backoff(), start_at=now)
            if self._scaling is not None and number >= self._scaling.least:
                member.rest(now)
            self._members.append(member)
        for member in self._members:
            if member.start_at is not None and member.start_at <= now:
                try:
                    handle = self._launcher.start(member.number)
                except OSError as error:  # the system has no room for a further process
                    member.ended(f"could not be started ({error.strerror or error})", now)
                    continue
                if member.begun:
                    member.restarts += 1
                    self._kept[_RESTARTS] = self._kept.get(_RESTARTS, 0) + 1
                member.started(handle, now)
                handle.send(self._begin)
        if not any(member.held for member in self._members):
            given_up = [member for member in self._members if member.given_up]
            reasons = "; ".join(f"replica {member.number} {member.last_end}" for member in given_up)
            raise EnvironmentFault(
                f"no replica can be kept alive ({reasons}): what was answered is kept, so mend that and run the same "
                "command again"
            )

    def _hear(
        self, member: Member, message: FromReplica, now: float
    ) -> Iterator[tuple[Completion | None, list[Request]]]:
        match message:
            case Beat():
                member.idle_seconds = message.idle_seconds
                member.offset = min(member.offset, now - message.clock)
                if message.signs != member.signs:
                    member.signs = message.signs
                    member.sign(now)
            case Ready():
                member.offset = min(member.offset, now - message.clock)
                member.sign(now)
                member.is_ready(now)
                self._leases.join(member.number, message.rows)
                self._rows = message.rows
            case Started():
                member.sign(now)
                self._leases.start(member.number, message.keys)
            case Answers():
                member.sign(now)
                yield from ((completion, []) for completion in self._answers(member, message, now))
            case Returned():
                member.sign(now)
                yield None, self._leases.give_back(member.number, message.keys)
            case Ended():
                member.facts = message.facts
                member.host_peak_bytes, member.device_peak_bytes = message.host_peak_bytes, message.device_peak_bytes
            case Failed():
                if message.kind != "error" and not any(one.loading_seconds for one in self._members):
                    raise (UsageError if message.kind == "usage" else EnvironmentFault)(message.reason)
                yield from self._lose(member, f"failed: {message.reason}", now)

    def _answers(self, member: Member, message: Answers, now: float) -> Iterator[Completion]:
        member.offset = min(member.offset, now - message.clock)
        for batch in message.batches:
            self._meter.batch(*batch)
        for event, detail in message.events:
            self._meter.event(event, detail)
        if message.learned_tokens is not None:
            self._budget.did_not_fit(2 * message.learned_tokens)
        for answer in message.answers:
            request = self._leases.settle(member.number, answer.key)
            if request is not None:
                member.answered += 1
                member.last_answer = now
                member.backoff.answered()
                member.patience.answered = True
                yield member.completion(request, answer)

    def _lose(
        self, member: Member, reason: str, now: float, outside: bool = False
    ) -> Iterator[tuple[Completion | None, list[Request]]]:
        """A replica is no more: its requests are handed out anew, or fail."""
        held = self._leases.held(member.number)
        lost = self._leases.leave(member.number, outside=outside)
        member.lost += held
        answered = [one.last_answer for one in self._members if one is not member and one.last_answer is not None]
        well = any(when >= member.ended_at for when in answered)  # since it ended before, so the model is not at fault
        member.ended(reason, now, blame=not (outside and well))
        again = held - len(lost.failed)
        them = "1 request was" if again == 1 else f"{again} requests were"
        what = f"replica {member.number} ({member.place}) {reason}; {them} handed out anew"
        self._meter.event("replica_lost", what)
        log.info(what)
        yield None, list(lost.again)
        for request, ends in lost.failed:
            words = f"{ends} replicas ended while they computed this request, the last one alone: it {reason}"
            yield Completion(request, (), "", "error", Timings(now, now, now), error=words), []

    def _scale(self, feed: Feed) -> None:
        """Replicas come and go with the work that is left."""
        if self._scaling is None:
            return
        held, now = [member for member in self._members if member.held], self._meter.now()
        work = self._leases.outstanding + feed.num_ready
        change = self._scaling.change(len(held), len(self._members), work, self._rows, now)
        woken = [member for member in self._members if member.resting and member.handle is None][: max(0, change)]
        for member in woken:
            member.wake(now)
        idle = [member for member in reversed(held) if not self._leases.held(member.number)]
        let_go = sorted(idle, key=lambda member: member.ready)[: max(0, -change)]
        for member in let_go:
            self._leases.leave(member.number)
            member.rest(now)
        if woken or let_go:
            after = len(held) + len(woken) - len(let_go)
            self._meter.event("scaled", f"{after} replicas instead of {len(held)}, since {work} requests were left")

    # --- requests --------------------------------------------------------------------------------------------------

    def _hand_out(self, feed: Feed) -> None:
        given = self._leases.try_apart()

        def pick(ready: list[Request]) -> tuple[list[Request], list[Request]]:
            chosen, rest = self._leases.assign(ready)
            for number, requests in chosen.items():
                given.setdefault(number, []).extend(requests)
            return [request for requests in chosen.values() for request in requests], rest

        while self._leases.wants and feed.choose(pick):
            ...
        for number, requests in given.items():
            self._send(number, Work(tuple(requests)))
        if self._leases.hungry:
            for number, count in self._leases.recall().items():
                self._send(number, Recall(count))

    def _send(self, number: int, message: Any) -> None:
        handle = self._members[number].handle
        assert handle is not None, "only replicas that live have leases"
        handle.send(message)


def _state(member: Member) -> str:
    if not member.held:
        return " (given up)" if member.given_up else " (let go)"
    state = "" if member.ready else " (starting)"
    return state if not member.restarts else f" (restarts {member.restarts})" if member.ready else state
