"""How many requests are in flight: additive increase, multiplicative decrease (Chiu and Jain, 1989), as in TCP.

It starts small and doubles after each round in which nothing was refused, until the first refusal; from then on a round
adds a twentieth. A refusal for too many requests takes a fifth off, once for all that were sent before it: they say the
same thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

START = 4
GROWTH = 0.05
CUT = 0.8
COOL_DOWN_SECONDS = 15.0
"""How long growth waits after a cut or after trouble."""
_MOST_CHANGES = 200

Why = Literal["start", "round", "refused", "trouble"]


@dataclass(frozen=True, slots=True)
class Change:
    """From `seconds` on at most `limit` requests were in flight."""

    seconds: float
    limit: int
    why: Why


@dataclass
class Concurrency:
    """The limit, and how it came about. Times are seconds on any one clock."""

    ceiling: int
    now: float = 0.0
    limit: int = field(init=False)
    changes: list[Change] = field(init=False)

    def __post_init__(self) -> None:
        self.limit = min(START, self.ceiling)
        self.changes = [Change(self.now, self.limit, "start")]
        self._doubling = True
        self._round = 0
        """Answers of this round."""
        self._cut_at = float("-inf")
        self._rests_until = float("-inf")

    def answered(self, now: float, in_flight: int) -> None:
        """A request was answered while so many were in flight, itself included. Where fewer were than may be, there is
        no sign that more would do."""
        if now < self._rests_until or 2 * in_flight < self.limit:
            self._round = 0
            return
        self._round += 1
        if self._round < self.limit or self.limit == self.ceiling:
            return
        more = self.limit if self._doubling else max(1, int(self.limit * GROWTH))
        self._set(now, min(self.ceiling, self.limit + more), "round")

    def refused(self, now: float, sent: float) -> None:
        """A request that was sent at `sent` was one too many."""
        self._doubling = False
        self._rests_until = max(self._rests_until, now + COOL_DOWN_SECONDS)
        if sent >= self._cut_at:
            self._cut_at = now
            self._set(now, max(1, int(self.limit * CUT)), "refused")

    def troubled(self, now: float) -> None:
        """The server or the way to it failed: no reason for fewer requests, but none for more."""
        self._round = 0
        self._rests_until = max(self._rests_until, now + COOL_DOWN_SECONDS)

    def _set(self, now: float, limit: int, why: Why) -> None:
        self._round = 0
        self.limit = limit
        self.changes.append(Change(now, limit, why))
        if len(self.changes) > _MOST_CHANGES:
            del self.changes[1:-1:2]  # of a long history every other change tells enough
