"""How values are distributed: histograms with round edges, and whether confidence tells right from wrong."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_MOST_BINS = 24
_CONFIDENCE_BINS = 10


@dataclass(frozen=True)
class Histogram:
    """`counts[k]` values lie from `edges[k]` to below `edges[k + 1]`; the last bin holds its upper edge too."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ConfidenceBin:
    """Answers whose confidence lies in one tenth of 0 to 1."""

    confidence: float
    """Their mean confidence."""
    score: float
    """Their mean score."""
    n: int


def round_step(span: float, most: int) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten of which at most `most` cover `span` (above 0)."""
    power = 10.0 ** math.floor(math.log10(span / most))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0) if m * power * most >= span * (1 - 1e-9))


def histogram(counted: Mapping[float, int]) -> Histogram | None:
    """Of values, with how often each occurs; None without any finite one. Whole numbers get bins of whole
    width, and each stands in the middle of its own where they are few."""
    finite = {value: count for value, count in counted.items() if math.isfinite(value)}
    if not finite:
        return None
    low, high = min(finite), max(finite)
    whole = all(float(value).is_integer() for value in finite)
    step = round_step(max(high - low, abs(high) * 1e-9, 1e-9), _MOST_BINS - 1)
    step = max(1.0, float(math.ceil(step))) if whole else step
    offset = 0.5 if step == 1.0 and whole else 0.0
    first = math.floor((low + offset) / step)
    count = math.floor((high + offset) / step) - first
    count += 1 if whole or count == 0 or high > (first + count) * step else 0
    counts = [0] * count
    for value, times in finite.items():
        counts[min(count - 1, max(0, math.floor((value + offset) / step) - first))] += times
    return Histogram(tuple(round((first + k) * step - offset, 12) for k in range(count + 1)), tuple(counts))


class Calibration:
    """Takes pairs of confidence and score, both from 0 to 1, and keeps sums of ten bins."""

    def __init__(self) -> None:
        self._bins = [[0.0, 0.0, 0.0] for _ in range(_CONFIDENCE_BINS)]
        self._beyond = False

    def add(self, confidence: float, score: float) -> None:
        """One answer."""
        self._beyond |= not 0.0 <= score <= 1.0
        sums = self._bins[min(_CONFIDENCE_BINS - 1, int(confidence * _CONFIDENCE_BINS))]
        for place, value in enumerate((confidence, score, 1.0)):
            sums[place] += value

    def bins(self) -> tuple[ConfidenceBin, ...]:
        """The bins that hold answers, least confident first; none where a score is no share of 1."""
        if self._beyond:
            return ()
        return tuple(ConfidenceBin(confidence / n, score / n, int(n)) for confidence, score, n in self._bins if n)


def calibration_error(bins: Iterable[ConfidenceBin]) -> float | None:
    """Expected calibration error (Naeini et al. 2015): the mean distance of confidence and score, weighted by n; None
    without answers."""
    known = list(bins)
    total = sum(one.n for one in known)
    return sum(abs(one.confidence - one.score) * one.n for one in known) / total if total else None
