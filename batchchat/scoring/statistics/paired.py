"""Tests of whether two runs over the same chats differ, and Holm's correction over several of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from batchchat.scoring.statistics.estimate import Numbers, cluster_sums, numbers

Name = TypeVar("Name", bound=Hashable)

_EXACT_UNITS = 16
"""All 2^16 sign patterns are enumerated up to here."""
_MAX_DRAWS = 400_000_000
_CHUNK_DRAWS = 8_000_000
_EXACT_DISCORDANT = 10_000
"""Above this many changed rows McNemar's chi-squared differs from the exact test in the fourth digit only."""


@dataclass(frozen=True, slots=True)
class Test:
    """A two-sided test: its p-value, the method that gave it and the number of pairs (or clusters) behind it."""

    p_value: float
    method: str
    n: int


def mcnemar(gained: int, lost: int, n: int, method: Literal["auto", "exact", "mid-p", "chi-squared"] = "auto") -> Test:
    """Whether as many rows went from wrong to right (`gained`) as from right to wrong (`lost`), out of `n`.

    `auto` takes the mid-p version of the exact test, which Fagerland, Lydersen and Laake (2013) recommend (the
    exact test is too cautious), and chi-squared without correction where more than 10,000 rows changed.
    """
    from scipy.stats import binom, chi2

    changed = gained + lost
    if gained < 0 or lost < 0 or changed > n:
        raise ValueError(f"{gained} gained and {lost} lost do not fit into {n} rows")
    if method == "auto":
        method = "mid-p" if changed <= _EXACT_DISCORDANT else "chi-squared"
    if changed == 0:
        return Test(1.0, f"McNemar {method}: no row changed", n)
    fewer = min(gained, lost)
    if method == "chi-squared":
        p_value = float(chi2.sf((gained - lost) ** 2 / changed, 1))
    else:
        p_value = 2 * float(binom.cdf(fewer, changed, 0.5))
        if method == "mid-p":
            p_value -= float(binom.pmf(fewer, changed, 0.5))
            if gained == lost:
                p_value = 1.0 - float(binom.pmf(fewer, changed, 0.5)) / 2
    return Test(min(1.0, p_value), f"McNemar {method}", n)


def paired_permutation(
    left: ArrayLike, right: ArrayLike, clusters: ArrayLike | None = None, resamples: int = 9_999, seed: int = 0
) -> Test:
    """Whether the mean of `left - right` differs from zero, by exchanging the two runs within each pair.

    With `clusters` the runs are exchanged for a whole cluster at once. Up to 16 units that differ every pattern is
    enumerated and the p-value exact; beyond, it is (1 + as extreme) / (1 + drawn) over random patterns.
    """
    one, other = numbers(left, "left"), numbers(right, "right")
    if one.size != other.size:
        raise ValueError(f"paired scores must be equally many, not {one.size} and {other.size}")
    gaps = one - other
    if clusters is not None:
        gaps = cluster_sums(gaps, clusters)[0]
    units = gaps.size
    gaps = np.abs(gaps[gaps != 0])
    if gaps.size == 0:
        return Test(1.0, "paired permutation: no pair differs", units)
    signed = one - other
    # The tolerance lets sums that are equal on paper count as equal, whatever order they were added in.
    observed = abs(float(signed.sum())) - 1e-9 * float(gaps.sum())
    if gaps.size <= _EXACT_UNITS:
        patterns = np.arange(2**gaps.size, dtype=np.uint32)[:, None] >> np.arange(gaps.size, dtype=np.uint32) & 1
        totals = np.abs((2.0 * patterns - 1.0) @ gaps)
        return Test(float((totals >= observed).mean()), "paired permutation, exact", units)
    extreme, drawn = _random_patterns(gaps, observed, resamples, seed)
    return Test((1 + extreme) / (1 + drawn), f"paired permutation, {drawn} random patterns", units)


def _random_patterns(gaps: Numbers, observed: float, resamples: int, seed: int) -> tuple[int, int]:
    """(patterns at least as extreme as `observed`, patterns drawn)."""
    random = np.random.default_rng(seed)
    kinds, counts = np.unique(gaps, return_counts=True)
    # Among m equal gaps only the number of flipped ones matters: one binomial draw instead of m signs.
    few_kinds = kinds.size * 8 <= gaps.size
    width = kinds.size if few_kinds else gaps.size
    resamples = min(resamples, max(1_000, _MAX_DRAWS // width))
    chunk = max(1, _CHUNK_DRAWS // width)
    extreme = 0
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        if few_kinds:
            totals = (2.0 * random.binomial(counts, 0.5, size=(rows, kinds.size)) - counts) @ kinds
        else:
            bits = np.unpackbits(random.integers(0, 256, (rows, -(-gaps.size // 8)), np.uint8), axis=1)
            totals = 2.0 * (bits[:, : gaps.size] @ gaps) - gaps.sum()
        extreme += int((np.abs(totals) >= observed).sum())
    return extreme, resamples


def holm(p_values: Mapping[Name, float]) -> dict[Name, float]:
    """p-values adjusted for testing all of them at once (Holm 1979), under the same names and in the same order."""
    wrong = [name for name, p_value in p_values.items() if not 0 <= p_value <= 1]
    if wrong:
        raise ValueError(f"p-values lie between 0 and 1, not so: {', '.join(map(str, wrong))}")
    adjusted: dict[Name, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}
