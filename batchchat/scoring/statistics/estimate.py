"""An estimate with its uncertainty, as every part of the report shows it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its standard error and interval; None where that could not be had from so few numbers.

    `n` counts the scores, `clusters` the independent units behind them (chats); they are equal where every score
    stands for itself. `method` names how the interval was made.
    """

    value: float
    n: int
    standard_error: float | None = None
    low: float | None = None
    high: float | None = None
    confidence: float = 0.95
    method: str = "none"
    clusters: int | None = None


def numbers(values: ArrayLike, name: str = "scores") -> Numbers:
    """`values` as a flat float array; ValueError where it is empty, has more axes or holds NaN or infinity."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must be a flat list of numbers, not of shape {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty: there is nothing to estimate")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity; leave unscored rows out and count them apart")
    return array


def normal_quantile(confidence: float) -> float:
    """How many standard errors the two-sided interval of this confidence reaches to each side (0.95: 1.96)."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def t_quantile(confidence: float, freedom: int) -> float:
    """The same by Student's t with `freedom` degrees of freedom."""
    from scipy import stats

    return float(stats.t.ppf(0.5 + confidence / 2, freedom))


def cluster_sums(values: Numbers, clusters: ArrayLike) -> tuple[Numbers, Numbers]:
    """Per cluster, in order of label, the sum of its values and their number."""
    labels = np.asarray(clusters)
    if labels.shape != values.shape:
        raise ValueError(f"{values.size} scores but {labels.size} cluster labels")
    _, place = np.unique(labels, return_inverse=True)
    return np.bincount(place, weights=values).astype(np.float64), np.bincount(place).astype(np.float64)
