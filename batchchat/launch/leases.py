"""Who computes what: every request that is handed out is a lease, and every lease ends in exactly one way.

Pure bookkeeping, without processes and clocks. A request is settled (answered), returned (its replica had not begun
it), or lost with its replica. Whoever was computed when a replica ended is under suspicion: one that took two replicas
down is tried alone, and fails if it takes down that one as well. Where replicas may have been ended from outside, most
such requests met chance, so they are tried in groups that get smaller with each end.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from batchchat.chats import Request

Key = tuple[int, int, int]

_STRIKES = 2
"""Replicas that may end over a request before it is tried apart from those that are not under suspicion."""
_SMALLER = 4
"""With each end from outside (a signal to kill, a node that is gone) the groups that are tried are so much smaller. One
by one, many that met chance would keep a replica busy for long, and be met again."""
_TRIES_ALONE = 3
"""Ends from outside that must meet a request alone until it is to blame."""
_HOMES = 65536


@dataclass
class _Held:
    """What one replica has. `capacity`: its engine's rows and as many again, so that it never waits for the way."""

    rows: int
    leases: dict[Key, Request] = field(default_factory=dict)
    started: set[Key] = field(default_factory=set)
    apart: int = 0
    """It was given so many requests under suspicion, and nothing else until they are answered."""
    recalling: bool = False

    @property
    def room(self) -> int:
        return 0 if self.apart else 2 * self.rows - len(self.leases)

    @property
    def load(self) -> float:
        """How much it has, in its engine's rows."""
        return len(self.leases) / self.rows

    @property
    def waiting(self) -> int:
        """Requests that it has not begun."""
        return 0 if self.apart else len(self.leases) - len(self.started)

    @property
    def hunger(self) -> int:
        """Rows of its engine for which it has nothing."""
        return 0 if self.apart else max(0, self.rows - len(self.leases))


@dataclass
class _Record:
    """Replicas that ended while they computed a request: by their own work or from outside, and how many of the latter
    computed nothing else."""

    own: int = 0
    outside: int = 0
    alone: int = 0

    @property
    def suspect(self) -> bool:
        return self.own + self.outside >= _STRIKES

    def company(self, rows: int) -> int:
        """With how many it may be tried on a replica of so many rows, itself included."""
        return 1 if self.own else max(1, rows // _SMALLER ** (self.outside - 1))


@dataclass(frozen=True)
class Lost:
    """What becomes of the leases of a replica that ended."""

    again: Sequence[Request]
    """To be handed out anew."""
    failed: Sequence[tuple[Request, int]]
    """Computed alone when the replica ended, after others: each is an error. With each its number of ends."""


class Leases:
    """Hands requests to replicas by credit: each has at most twice the rows of its engine."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._homes: OrderedDict[int, int] = OrderedDict()
        """Chat -> the replica that holds its prefix; the oldest are forgotten."""
        self._records: dict[Key, _Record] = {}
        self._suspects: deque[Request] = deque()

    # --- replicas come and go --------------------------------------------------------------------------------------

    def join(self, replica: int, rows: int) -> None:
        """A replica is ready; its engine computes up to `rows` requests at a time."""
        assert replica not in self._held, "a replica joins once"
        self._held[replica] = _Held(rows)

    def leave(self, replica: int, *, outside: bool = False) -> Lost:
        """A replica ended; `outside` where something else than its work may have ended it."""
        held = self._held.pop(replica, None)
        if held is None:
            return Lost([], [])
        again: list[Request] = []
        failed: list[tuple[Request, int]] = []
        for key, request in held.leases.items():
            self._homes.pop(request.index, None)
            if key in held.started:
                record = self._records.setdefault(key, _Record())
                record.own += not outside
                record.outside += outside
                record.alone += held.apart == 1
                if held.apart == 1 and (not outside or record.alone >= _TRIES_ALONE):
                    failed.append((request, record.own + record.outside))
                    del self._records[key]
                    continue
            (self._suspects if self._is_suspect(key) else again).append(request)
        return Lost(again, failed)

    # --- leases ----------------------------------------------------------------------------------------------------

    def assign(self, ready: Sequence[Request]) -> tuple[dict[int, list[Request]], list[Request]]:
        """Hand out what there is room for: by replica what it gets, longest expected answer first, and the rest.

        A later turn goes to the replica that holds its chat's prefix; to another only where that one has no room and
        the other one's rows are empty.
        """
        given: dict[int, list[Request]] = {}
        ward = min(self._held, default=None) if self._suspects else None  # it drains, to take what is under suspicion
        open_ = {number: held for number, held in self._held.items() if number != ward}
        rest: list[Request] = []
        strays: list[Request] = []
        by_load = [(held.load, number) for number, held in open_.items() if held.room > 0]
        heapify(by_load)
        in_order = sorted(ready, key=lambda request: -request.settings.max_new_tokens)
        for place, request in enumerate(in_order):
            home = self._homes.get(request.index)
            if home in open_:
                if open_[home].room > 0:
                    self._lease(home, request, given)
                else:
                    strays.append(request)
                continue
            while by_load and by_load[0][0] != (now := open_[by_load[0][1]]).load:  # it has got others since
                number = heappop(by_load)[1]
                if now.room > 0:
                    heappush(by_load, (now.load, number))
            if not by_load:  # no replica has room
                rest += in_order[place:]
                break
            number = heappop(by_load)[1]
            self._lease(number, request, given)
            if open_[number].room > 0:
                heappush(by_load, (open_[number].load, number))
        for request in strays:
            hungry = max(open_, key=lambda number: open_[number].hunger, default=None)
            if hungry is not None and open_[hungry].hunger > 0:
                self._lease(hungry, request, given)
            else:
                rest.append(request)
        return given, rest

    def try_apart(self) -> dict[int, list[Request]]:
        """Requests under suspicion for replicas that have nothing: each computes its own, one or a few, and nothing
        else until they are answered."""
        given: dict[int, list[Request]] = {}
        for number, held in self._held.items():
            if self._suspects and not held.leases:
                for request in self._group(held.rows):
                    self._lease(number, request, given)
                held.apart = len(held.leases)
        return given

    def _group(self, rows: int) -> list[Request]:
        """The first request under suspicion, with others that may be tried in its company."""
        chosen: list[Request] = []
        most, rest = rows, deque[Request]()
        for request in self._suspects:
            company = min(most, self._records[request.key].company(rows))
            if len(chosen) < company:
                chosen.append(request)
                most = company
            else:
                rest.append(request)
        self._suspects = rest
        return chosen

    def start(self, replica: int, keys: Iterable[Key]) -> None:
        """The replica's engine has begun these."""
        if replica in self._held:
            self._held[replica].started.update(keys)

    def settle(self, replica: int, key: Key) -> Request | None:
        """An answer came. None where that replica does not hold the request any more: the answer is dropped."""
        held = self._held.get(replica)
        request = None if held is None else held.leases.pop(key, None)
        if held is None or request is None:
            return None
        held.started.discard(key)
        held.apart = held.apart if held.leases else 0
        self._records.pop(key, None)
        return request

    def recall(self) -> dict[int, int]:
        """Where replicas have empty rows, how many requests that others have not begun they are asked to give back, by
        replica: so many that both then have as much. Each is asked once until it answers with `give_back`."""
        asked: dict[int, int] = {}
        for hungry in sorted(self._held, key=self.held):
            open_ = [number for number, held in self._held.items() if not held.recalling]
            if self._held[hungry].hunger == 0 or not open_:
                break
            fullest = max(open_, key=lambda number: self._held[number].waiting)
            held = self._held[fullest]
            count = min(held.waiting, (len(held.leases) - self.held(hungry) + 1) // 2)
            if fullest == hungry or len(held.leases) - self.held(hungry) < 2 or count < 1:
                break
            asked[fullest] = count
            held.recalling = True
        return asked

    def give_back(self, replica: int, keys: Iterable[Key]) -> list[Request]:
        """The replica had not begun these; they are anyone's again."""
        held = self._held.get(replica)
        if held is None:
            return []
        held.recalling = False
        returned = [held.leases.pop(key) for key in keys if key in held.leases and key not in held.started]
        for request in returned:
            self._homes.pop(request.index, None)
        return returned

    # --- what there is ---------------------------------------------------------------------------------------------

    @property
    def wants(self) -> bool:
        """Whether it is worth while to hand out: a replica has rows, or half of what waits for its rows, empty."""
        return any(held.room > held.rows // 2 for held in self._held.values()) or bool(self._suspects)

    @property
    def hungry(self) -> bool:
        """Whether a replica has empty rows."""
        return any(held.hunger for held in self._held.values())

    def held(self, replica: int) -> int:
        """How many requests a replica has."""
        return len(self._held[replica].leases) if replica in self._held else 0

    @property
    def outstanding(self) -> int:
        """Requests that were handed out and not answered, those under suspicion included."""
        return sum(len(held.leases) for held in self._held.values()) + len(self._suspects)

    def _lease(self, replica: int, request: Request, given: dict[int, list[Request]]) -> None:
        self._held[replica].leases[request.key] = request
        given.setdefault(replica, []).append(request)
        self._homes[request.index] = replica
        self._homes.move_to_end(request.index)
        if len(self._homes) > _HOMES:
            self._homes.popitem(last=False)

    def _is_suspect(self, key: Key) -> bool:
        return key in self._records and self._records[key].suspect
