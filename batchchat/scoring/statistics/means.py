"""Means with standard errors and Student's t, clustered where several scores share a chat."""

from __future__ import annotations

import math

from numpy.typing import ArrayLike

from batchchat.scoring.statistics.estimate import Estimate, cluster_sums, numbers, t_quantile


def mean(scores: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The mean with its standard error (sample deviation, n - 1) and Student's t interval."""
    values = numbers(scores)
    n = values.size
    if n < 2:
        return Estimate(float(values.mean()), n, confidence=confidence, clusters=n)
    centre = float(values.mean())
    error = float(values.std(ddof=1)) / math.sqrt(n)
    reach = t_quantile(confidence, n - 1) * error
    return Estimate(centre, n, error, centre - reach, centre + reach, confidence, "Student's t", clusters=n)


def clustered_mean(scores: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The mean of all scores with a standard error that lets scores of one cluster depend on each other.

    The sandwich estimator of Liang and Zeger (1986) for a constant, with the small-sample correction G/(G-1) for G
    clusters, and Student's t with G - 1 degrees of freedom. With one score per cluster it is the plain mean's.
    """
    values = numbers(scores)
    sums, sizes = cluster_sums(values, clusters)
    n, groups = values.size, sums.size
    centre = float(values.mean())
    if groups < 2:
        return Estimate(centre, n, confidence=confidence, clusters=groups)
    residuals = sums - sizes * centre
    error = math.sqrt(float(residuals @ residuals) * groups / (groups - 1)) / n
    reach = t_quantile(confidence, groups - 1) * error
    return Estimate(
        centre, n, error, centre - reach, centre + reach, confidence, "clustered, Student's t", clusters=groups
    )
