"""What a run over very many replicas would do, without them: an event-driven simulation of docs/SCALING.md.

    python -m scripts.scaling --driver-ms 0.5 --store-bytes 3000

The bookkeeping is the real one (`launch.leases`). Replicas are rows that each take a step's time per token; the run's
process is one server that every answer costs so many milliseconds, as measured on a real run.
"""

from __future__ import annotations

import argparse
import math
import random
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from batchchat.chats import Request, Settings
from batchchat.launch.leases import Leases

_WAY_SECONDS = 0.0005
_LOOK_SECONDS = 0.001
"""One look after all replicas, whatever they said."""
_AHEAD = 16384
_LIMIT = 1024


@dataclass
class Found:
    """What came out. Shares are of 1, times in seconds of the simulated clock."""

    replicas: int
    answers: int
    seconds: float
    busy: float
    """Of all rows over the time until the first replica had nothing left."""
    driver: float
    """Share of the time that the run's process worked."""
    tail: float
    """Share of the time after the first replica had nothing left."""

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


@dataclass
class _Replica:
    free: int
    queue: deque[Request] = field(default_factory=deque)
    busy_seconds: float = 0.0
    ended: float = 0.0
    """When its last row ended."""


def simulate(replicas: int, rows: int, step: float, driver: float, per_row: int, median: int = 200) -> Found:
    """`per_row` answers for every row there is, of log-normal length; `step` seconds a token, `driver` seconds an
    answer."""
    rng = random.Random(0)
    leases = Leases()
    nodes = [_Replica(rows) for _ in range(replicas)]
    for number in range(replicas):
        leases.join(number, rows)
    total = replicas * rows * per_row
    lengths = [max(4, min(_LIMIT, int(rng.lognormvariate(math.log(median), 0.7)))) for _ in range(total)]
    stream = (Request("", n, 0, 0, (), Settings(_LIMIT), 0) for n in range(total))
    ready: list[Request] = []
    events: list[tuple[float, int, str, int, Request | None]] = []
    order = count()
    inbox: deque[tuple[int, Request]] = deque()
    working = free_at = 0.0
    due = False

    def tell(time: float, what: str, number: int = 0, request: Request | None = None) -> None:
        heappush(events, (time, next(order), what, number, request))

    def begin(number: int, now: float) -> None:
        node = nodes[number]
        started = []
        while node.free and node.queue:
            request = node.queue.popleft()
            node.free -= 1
            seconds = lengths[request.index] * step
            node.busy_seconds += seconds
            started.append(request.key)
            tell(now + seconds, "done", number, request)
        leases.start(number, started)

    tell(0.0, "look")
    answered, now = 0, 0.0
    while events:
        now, _, what, number, request = heappop(events)
        if what == "done":
            assert request is not None
            nodes[number].free += 1
            nodes[number].ended = now
            begin(number, now)
            tell(now + _WAY_SECONDS, "heard", number, request)
        elif what == "heard":
            assert request is not None
            inbox.append((number, request))
            if not due:
                due = True
                tell(max(now, free_at), "look")
        elif what == "work":
            assert request is not None
            nodes[number].queue.append(request)
            begin(number, now)
        else:
            due = False
            cost = _LOOK_SECONDS + driver * len(inbox)
            for sender, done in inbox:
                leases.settle(sender, done.key)
            answered += len(inbox)
            inbox.clear()
            given: dict[int, list[Request]] = {}
            while leases.wants:
                while len(ready) < _AHEAD and (following := next(stream, None)) is not None:
                    ready.append(following)
                chosen, ready = leases.assign(ready)
                if not chosen:
                    break
                for one, requests in chosen.items():
                    given.setdefault(one, []).extend(requests)
            if leases.hungry and not ready:
                for one, wanted in leases.recall().items():
                    back = [nodes[one].queue.pop() for _ in range(min(wanted, len(nodes[one].queue)))]
                    ready += leases.give_back(one, [request.key for request in back])
                    due = True
            working += cost
            free_at = now + cost
            for one, requests in given.items():
                for each in requests:
                    tell(free_at + _WAY_SECONDS, "work", one, each)
            if due:
                tell(free_at + 2 * _WAY_SECONDS, "look")
    assert answered == total, "every request is answered once"
    first_idle = min(node.ended for node in nodes)
    used = sum(node.busy_seconds for node in nodes) / (replicas * rows * now)
    return Found(replicas, total, now, used, working / now, (now - first_idle) / now)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver-ms", type=float, required=True, help="of the run's process, an answer")
    parser.add_argument("--store-bytes", type=float, required=True, help="of the run store, a chat")
    parser.add_argument("--step-ms", type=float, default=20.0, help="a token of every row")
    parser.add_argument("--rows", type=int, default=64)
    given = parser.parse_args()
    chats = 10**8
    print("| replicas | answers simulated | answers/s | rows busy | driver | tail | 10^8 chats take | store |")
    print("|---|---|---|---|---|---|---|---|")
    for replicas, per_row in ((8, 40), (64, 20), (256, 8), (1000, 4)):
        found = simulate(replicas, given.rows, given.step_ms / 1000, given.driver_ms / 1000, per_row)
        days = chats / found.per_second / 86400
        print(
            f"| {replicas:,} | {found.answers:,} | {found.per_second:,.0f} | {found.busy:.0%} | {found.driver:.0%} | "
            f"{found.tail:.1%} | {days:,.1f} days | {chats * given.store_bytes / 1e9:,.0f} GB |"
        )


if __name__ == "__main__":
    main()
