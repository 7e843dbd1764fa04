"""How often intervals hold the truth, and how often a gate on "not worse than" passes a run that is worse.

Run as a script it prints the tables of docs/STATISTICS.md: python tests/support/interval_coverage.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from batchchat.scoring import statistics as stats
from batchchat.scoring.statistics import Estimate

Numbers = np.ndarray
SIZES = (5, 10, 20, 50)
RIGHT = (0.3, 0.7, 0.95)


def pass_rate(n: int, right: float, margin: float) -> float:
    """The exact chance that a run of `n` rows passes "not worse by `margin`" though its true loss is the margin and a
    hair, for the worst of eleven shares of rows that it gains. The other run is right in a share `right`."""
    loss = margin + 1e-9
    most = 0.0
    passing = [
        (gained, lost) for gained in range(n + 1) for lost in range(n + 1 - gained) if _low(gained, lost, n) >= -margin
    ]
    for gain in np.linspace(0, max(min(1 - right, right - loss), 0.0), 11):
        if gain + loss > right or 2 * gain + loss > 1:
            continue
        most = max(most, sum(_chance(gained, lost, n, gain, gain + loss) for gained, lost in passing))
    return most


def _low(gained: int, lost: int, n: int) -> float:
    low = stats.tango(gained, lost, n).low
    assert low is not None
    return low


def _chance(gained: int, lost: int, n: int, gain: float, loss: float) -> float:
    same = n - gained - lost
    ways = math.comb(n, gained) * math.comb(n - gained, lost)
    return float(ways * gain**gained * loss**lost * max(1 - gain - loss, 0.0) ** same)


@dataclass(frozen=True)
class Kind:
    """A kind of interval, on data of which the truth is known: `draw` gives an estimate from n units and the truth."""

    name: str
    draw: Callable[[np.random.Generator, int], tuple[Estimate, float]]


def _shares(share: float) -> Kind:
    def draw(random: np.random.Generator, n: int) -> tuple[Estimate, float]:
        values = (random.random(n) < share).astype(float)
        return stats.score_interval(values, np.arange(n)), share

    return Kind(f"share of right answers, {share:g} (Wilson)", draw)


def _clustered(share: float) -> Kind:
    def draw(random: np.random.Generator, n: int) -> tuple[Estimate, float]:
        chance = random.beta(2 * share, 2 * (1 - share), n)  # correlation of 1/3 within a chat
        values = (random.random((n, 4)) < chance[:, None]).astype(float).ravel()
        return stats.score_interval(values, np.repeat(np.arange(n), 4)), share

    return Kind(f"the same, four answers a chat, {share:g} (Wilson, effective n)", draw)


def _pairs(gain: float, loss: float) -> Kind:
    def draw(random: np.random.Generator, n: int) -> tuple[Estimate, float]:
        fate = random.choice(3, n, p=[gain, loss, 1 - gain - loss])
        right = random.random(n) < 0.5
        ours = np.where(fate == 0, 1, np.where(fate == 1, 0, right)).astype(float)
        theirs = np.where(fate == 0, 0, np.where(fate == 1, 1, right)).astype(float)
        return stats.paired_interval(ours, theirs, np.arange(n)), gain - loss

    return Kind(f"paired difference, {gain:g} gained, {loss:g} lost (Tango)", draw)


def _clustered_pairs(gain: float, loss: float) -> Kind:
    def draw(random: np.random.Generator, n: int) -> tuple[Estimate, float]:
        chances = random.dirichlet(2 * np.array([gain, loss, 1 - gain - loss]), n)
        fate = (random.random((n, 4))[:, :, None] > np.cumsum(chances, axis=1)[:, None, :]).sum(axis=2)
        ours, theirs = (fate != 1).astype(float).ravel(), (fate != 0).astype(float).ravel()
        return stats.paired_interval(ours, theirs, np.repeat(np.arange(n), 4)), gain - loss

    return Kind(f"the same, four answers a chat, {gain:g} and {loss:g} (Tango, effective n)", draw)


def _graded(random: np.random.Generator, n: int) -> tuple[Estimate, float]:
    return stats.score_interval(random.beta(2, 1, n), np.arange(n)), 2 / 3


def _graded_pairs(random: np.random.Generator, n: int) -> tuple[Estimate, float]:
    base = random.beta(2, 2, n)
    return stats.paired_interval(base + random.normal(0.02, 0.1, n), base, np.arange(n)), 0.02


def _rare_pairs(random: np.random.Generator, n: int) -> tuple[Estimate, float]:
    """A tenth of the grades changed, most of them for the worse."""
    base = random.integers(1, 11, n).astype(float)
    change = np.where(random.random(n) < 0.1, np.where(random.random(n) < 0.8, -2.0, 2.0), 0.0)
    return stats.paired_interval(base + change, base, np.arange(n)), -0.12


def _wins(random: np.random.Generator, n: int) -> tuple[Estimate, float]:
    return stats.win_rate(random.choice([1.0, 0.5, 0.0], n, p=[0.5, 0.3, 0.2])), 0.65


def _kappa(agree: float) -> Kind:
    def draw(random: np.random.Generator, n: int) -> tuple[Estimate, float]:
        one = random.integers(0, 2, n)
        other = np.where(random.random(n) < agree, one, random.integers(0, 2, n))
        if np.unique(np.concatenate([one, other])).size < 2:
            return Estimate(1.0, n), agree
        return stats.cohen_kappa(one.tolist(), other.tolist()), agree

    return Kind(f"Cohen's kappa, {agree:g} (Wilson on agreement)", draw)


KINDS = (
    _shares(0.7),
    _shares(0.95),
    _clustered(0.7),
    _pairs(0.1, 0.1),
    _pairs(0.2, 0.1),
    _pairs(0.02, 0.05),
    _clustered_pairs(0.15, 0.1),
    Kind("mean of graded scores (Student's t, from 100 BCa)", _graded),
    Kind("paired difference of graded scores (Student's t, from 100 BCa)", _graded_pairs),
    Kind("the same, few of them changed (Tango, largest change)", _rare_pairs),
    Kind("win rate with ties (Tango)", _wins),
    _kappa(0.4),
    _kappa(0.8),
)


def coverage(kind: Kind, n: int, trials: int, seed: int = 0) -> float | None:
    """The share of trials in which the interval holds the truth; None where there is no interval."""
    random = np.random.default_rng(seed)
    held = told = 0
    for _ in range(trials):
        found, truth = kind.draw(random, n)
        if found.low is not None and found.high is not None:
            told += 1
            held += found.low - 1e-12 <= truth <= found.high + 1e-12
    return held / told if told else None


def tables(trials: int = 2_000) -> Iterator[str]:
    """The two tables in Markdown."""
    margins = (0.02, 0.05, 0.1, 0.2)
    yield "| rows | right | " + " | ".join(f"margin {margin:g}" for margin in margins) + " |"
    yield "|" + "---|" * (2 + len(margins))
    for n in SIZES:
        for right in RIGHT:
            rates = " | ".join(f"{100 * pass_rate(n, right, margin):.1f} %" for margin in margins)
            yield f"| {n} | {right:g} | {rates} |"
    yield ""
    sizes = (*SIZES, 150)
    yield "| interval | " + " | ".join(f"n = {n}" for n in sizes) + " |"
    yield "|" + "---|" * (1 + len(sizes))
    for kind in KINDS:
        rates = (coverage(kind, n, trials if n <= 50 else trials // 4) for n in sizes)
        yield f"| {kind.name} | {' | '.join('none' if rate is None else f'{100 * rate:.1f} %' for rate in rates)} |"


if __name__ == "__main__":
    for line in tables():
        print(line, flush=True)
