"""Speculative decoding: when to draft, and what came of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field

from batchchat.engines.base import EngineMeter
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.sequence import SequenceState
from batchchat.engines.continuous.speculative.drafters import Drafter, Drafts
from batchchat.engines.facts import DraftFacts
from batchchat.sampling import SamplerRows

_TRIAL = 6
"""Steps of each kind, with and without drafts, before they are compared."""
_AGAIN = 96
"""Steps after which the slower kind is tried once more: chats differ in how well they can be guessed."""
_FADING = 0.97
"""How much of its weight a step's measurement keeps per later step of its kind."""


@dataclass(slots=True)
class _Pace:
    """Seconds per token of one kind of step, recent steps counting more."""

    steps: int = 0
    seconds: float = 0.0
    tokens: float = 0.0

    def add(self, seconds: float, tokens: int) -> None:
        self.steps += 1
        self.seconds = self.seconds * _FADING + seconds
        self.tokens = self.tokens * _FADING + tokens

    @property
    def seconds_per_token(self) -> float:
        return self.seconds / self.tokens if self.tokens else float("inf")


@dataclass(slots=True)
class _Contest:
    """Steps with and without drafts, at about the same number of rows."""

    drafted: _Pace = field(default_factory=_Pace)
    plain: _Pace = field(default_factory=_Pace)
    until: int = 0
    """Steps of the faster kind until the slower one is tried again."""
    is_off: bool = False

    @property
    def drafts(self) -> bool:
        """Whether the next step is to be one with drafts."""
        if self.drafted.steps < _TRIAL:
            return True
        if self.plain.steps < _TRIAL:
            return False
        pays = self.drafted.seconds_per_token < self.plain.seconds_per_token
        return pays if self.until else not pays

    def add(self, drafted: bool, seconds: float, tokens: int) -> None:
        (self.drafted if drafted else self.plain).add(seconds, tokens)
        self.until = self.until - 1 if self.until else _AGAIN


class Speculation:
    """Asks the drafter as long as drafts save time, measured at each number of rows: the more rows a pass computes
    anyway, the less a guess can save. `force`: draft always.
    """

    def __init__(self, drafter: Drafter, meter: EngineMeter, force: bool = False):
        self._drafter: Drafter | None = drafter
        self._meter = meter
        self._force = force
        self._about = drafter.describe
        self._contests: defaultdict[int, _Contest] = defaultdict(_Contest)
        self._proposed = self._accepted = 0
        self._row_steps = self._row_tokens = 0
        self._seconds = self._seconds_without = 0.0
        self._num_plain = 0

    def drafts(self, live: Ordered[SequenceState], sampler: SamplerRows) -> Drafts | None:
        """Drafts for the next step; None where it is better computed without."""
        if self._drafter is None or not live:
            return None
        if not self._force and not self._contests[_crowd(len(live))].drafts:
            return None
        try:
            return self._drafter.propose(live, sampler)
        except Exception as error:  # a draft is never needed: whatever fails, the answers come without
            self._drafter = None
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            self._meter.event("drafts_off", f"the draft failed ({words}); the answers are written without")
            return None

    def verified(self, spans: Iterable[Span[SequenceState]]) -> None:
        """A step wrote the next tokens of these spans' sequences."""
        for span in spans:
            if span.drafts:
                self._proposed += len(span.drafts)
                self._accepted += max(_written(span) - 1, 0)
                self._row_steps += 1
                self._row_tokens += _written(span)

    def took(self, spans: Ordered[Span[SequenceState]], drafted: bool, seconds: float) -> None:
        """A step that computed nothing but these next tokens took so long. `drafted`: drafts were asked for."""
        rows, tokens = len(spans), sum(map(_written, spans))
        contest = self._contests[_crowd(rows)]
        contest.add(drafted, seconds, tokens)
        if not drafted:
            self._num_plain += 1
        elif contest.plain.steps:
            self._seconds += seconds
            self._seconds_without += tokens * contest.plain.seconds_per_token
        self._tell(contest, rows)

    def describe(self) -> DraftFacts:
        """Facts for the report."""
        return DraftFacts(
            **self._about(),
            proposed=self._proposed,
            accepted=self._accepted,
            acceptance=self._accepted / self._proposed if self._proposed else None,
            tokens_per_step=self._row_tokens / self._row_steps if self._row_steps else None,
            steps_without=self._num_plain,
            speed_up=self._seconds_without / self._seconds if self._seconds else None,
        )

    def _tell(self, contest: _Contest, rows: int) -> None:
        if self._force or min(contest.drafted.steps, contest.plain.steps) < _TRIAL:
            return
        with_drafts, without = contest.drafted.seconds_per_token, contest.plain.seconds_per_token
        if (with_drafts >= without) != contest.is_off:
            contest.is_off = not contest.is_off
            verdict = "they cost more than they gain" if contest.is_off else "they gain again"
            self._meter.event(
                "drafts_off" if contest.is_off else "drafts_on",
                f"{1e3 * with_drafts:.1f} ms a token with drafts and {1e3 * without:.1f} without, at about {rows} "
                f"rows: {verdict}",
            )


def _written(span: Span[SequenceState]) -> int:
    return len(span.sequence.tokens) - span.known


def _crowd(rows: int) -> int:
    """Numbers of rows that are compared with each other: 1, 2, 3 to 4, 5 to 8, …"""
    return (rows - 1).bit_length()
