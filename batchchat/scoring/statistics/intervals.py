"""Which interval a mean or a paired difference gets: one that holds what it promises at the number of rows there is.

docs/STATISTICS.md says which is used when, and how often each covers the truth.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from batchchat.scoring.statistics.bootstrap import bootstrap_mean, paired_bootstrap
from batchchat.scoring.statistics.estimate import Estimate, Numbers, cluster_sums, normal_quantile, numbers
from batchchat.scoring.statistics.means import clustered_mean
from batchchat.scoring.statistics.proportions import clustered_tango, clustered_wilson, tango, tango_bounds, wilson

FEW_UNITS = 100
"""Fewer rows (or chats, where several scores share one) have Student's t, of which the bootstrap falls short there."""
FEW_CHANGES = 10
"""Fewer changed units say too little of how large changes are: each then counts as the largest possible one."""


def score_interval(scores: ArrayLike, clusters: ArrayLike, confidence: float = 0.95, seed: int = 0) -> Estimate:
    """The mean of a run's scores, `clusters` naming the chat of each.

    Wilson's for scores of 0 and 1, at the effective number of rows where chats have several. For other scores Student's
    t over chats, from 100 chats the BCa bootstrap. Other scores that are all equal have no interval: they say nothing
    of how far scores vary.
    """
    values = numbers(scores)
    alone, units = _units(clusters)
    if _binary(values):
        return (
            wilson(float(values.sum()), values.size, confidence)
            if alone
            else clustered_wilson(values, clusters, confidence)
        )
    if np.ptp(values) == 0:
        return Estimate(float(values[0]), values.size, None, None, None, confidence, _EQUAL, clusters=units)
    student = clustered_mean(values, clusters, confidence)
    if units < FEW_UNITS:
        return student
    found = bootstrap_mean(values, None if alone else clusters, confidence, seed=seed)
    return replace(found, standard_error=student.standard_error)


def paired_interval(
    left: ArrayLike, right: ArrayLike, clusters: ArrayLike, confidence: float = 0.95, seed: int = 0
) -> Estimate:
    """The mean of `left - right`, row by row.

    Tango's for scores of 0 and 1, at the effective number of rows where chats have several. For other scores Student's
    t over chats, from 100 chats the BCa bootstrap; where fewer than ten chats changed, Tango's with every change as
    large as the range of all scores, since so few do not tell how large a change may be.
    """
    one, other = numbers(left, "left"), numbers(right, "right")
    if one.size != other.size:
        raise ValueError(f"paired scores must be equally many, not {one.size} and {other.size}")
    gaps = one - other
    alone, units = _units(clusters)
    if _binary(one) and _binary(other):
        if not alone:
            return clustered_tango(gaps, clusters, confidence)
        return tango(float((gaps > 0).sum()), float((gaps < 0).sum()), gaps.size, confidence)
    sums, sizes = cluster_sums(gaps, clusters)
    means = sums / sizes
    if int((means != 0).sum()) < FEW_CHANGES:
        return _few_changes(gaps, means, _range(one, other), confidence)
    student = clustered_mean(gaps, clusters, confidence)
    if units < FEW_UNITS or np.ptp(means) == 0:
        return student
    found = paired_bootstrap(one, other, None if alone else clusters, confidence, seed=seed)
    return replace(found, standard_error=student.standard_error)


_EQUAL = "all scores are equal: no interval"


def _few_changes(gaps: Numbers, means: Numbers, width: float, confidence: float) -> Estimate:
    value, units = float(gaps.mean()), means.size
    if width == 0:
        return Estimate(value, gaps.size, None, None, None, confidence, _EQUAL, clusters=units)
    # For the lower bound losses are as large as can be and gains nothing; the other way round for the upper one.
    z = normal_quantile(confidence)
    low = width * tango_bounds(0.0, float((means < 0).sum()), units, z)[0]
    high = width * tango_bounds(float((means > 0).sum()), 0.0, units, z)[1]
    error = float(means.std(ddof=1)) / units**0.5 if units > 1 else None
    method = f"Tango, each change as large as {width:g}"
    return Estimate(value, gaps.size, error, low, high, confidence, method, clusters=units)


def _range(one: Numbers, other: Numbers) -> float:
    """The range of all scores; 1 where they are one number from 0 to 1."""
    whole = np.concatenate([one, other])
    found = float(np.ptp(whole))
    return 1.0 if found == 0 and 0 <= whole[0] <= 1 else found


def _binary(values: Numbers) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _units(clusters: ArrayLike) -> tuple[bool, int]:
    """(whether each row is a cluster of its own, the number of clusters)."""
    labels = np.asarray(clusters)
    units = int(np.unique(labels).size)
    return units == labels.size, units
