"""How long a replica may be silent, and when one that ended is started again. Pure: the time is given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Patience:
    """How long one waits for a sign of work. A limit follows from the replica's own history: the longest it was ever
    silent, times `factor`; until it has answered anything, `first` (a model compiles, a disk is slow)."""

    factor: float = 10.0
    least: float = 30.0
    first: float = 900.0
    longest: float = 0.0
    """The longest silence that ended well, in seconds."""
    answered: bool = False

    def heard_after(self, seconds: float) -> None:
        """A sign came after so long."""
        self.longest = max(self.longest, seconds)

    @property
    def limit(self) -> float:
        """Seconds of silence after which a replica hangs."""
        known = max(self.least, self.factor * self.longest)
        return known if self.answered else max(self.first, known)

    def was_wrong_perhaps(self) -> None:
        """A replica was given up for its silence: the next one is waited for twice as long."""
        self.least *= 2


@dataclass
class Backoff:
    """When to start again: at once, then after 1, 2, 4, … seconds, at most `most`. After `tries` ends that are to be
    blamed on it, without an answer between them, it is given up."""

    tries: int = 5
    most: float = 60.0
    in_a_row: int = 0
    blamed: int = 0

    def ended(self, blame: bool = True) -> float | None:
        """It ended, and that is to `blame` on it or met it by chance: seconds to wait, or None where it is given up."""
        self.in_a_row += 1
        self.blamed += blame
        if self.blamed >= self.tries:
            return None
        return 0.0 if self.in_a_row == 1 else min(self.most, 2.0 ** min(self.in_a_row - 2, 30))

    def answered(self) -> None:
        self.in_a_row = self.blamed = 0
