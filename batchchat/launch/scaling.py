"""How many replicas a run holds, where they may come and go with its work. Pure: the time is given."""

from __future__ import annotations

from dataclasses import dataclass

_SURPLUS_SECONDS = 10.0


@dataclass
class Scaling:
    """As many replicas as there is work for, but at least `least`. More are asked for at once; fewer are held only when
    there was too little work for `patience` seconds, since a replica costs its start-up."""

    least: int
    patience: float = _SURPLUS_SECONDS
    _surplus_since: float | None = None

    def change(self, held: int, most: int, work: int, rows: int, now: float) -> int:
        """How many replicas more are to be held than are, or fewer (negative). `work` counts the requests that are in
        flight or ready, `rows` those that one replica computes at a time."""
        wanted = max(self.least, min(most, -(-work // rows)))
        if held <= wanted:
            self._surplus_since = None
            return wanted - held
        if self._surplus_since is None:
            self._surplus_since = now
        return wanted - held if now - self._surplus_since >= self.patience else 0
