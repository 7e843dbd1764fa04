"""Ceilings of what is sent in a minute: a bucket that fills steadily and holds a minute's worth (token bucket)."""

from __future__ import annotations

from dataclasses import dataclass

_MINUTE = 60.0
_BURST_SECONDS = 1.0
"""What may be sent at once after a pause: a server that counts by the second sees no more than its share."""


@dataclass
class Pace:
    """Lets `per_minute` units through in a minute; None is no limit."""

    per_minute: float | None
    now: float = 0.0

    def __post_init__(self) -> None:
        self._free_at = self.now

    def wait(self, now: float) -> float:
        """Seconds until the next thing may be sent; 0 is now."""
        return 0.0 if self.per_minute is None else max(0.0, self._free_at - now)

    def sent(self, now: float, units: float) -> None:
        """So many units were sent. What is larger than the burst goes alone, and the next waits for as long."""
        if self.per_minute is not None:
            begin = max(self._free_at, now - _BURST_SECONDS)
            self._free_at = begin + units * _MINUTE / self.per_minute
