"""How far two raters agree, and how far two columns of numbers go together."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from batchchat.scoring.statistics.estimate import Estimate, normal_quantile, numbers, t_quantile
from batchchat.scoring.statistics.proportions import wilson_bounds

FEWEST_ITEMS = 10
"""Fewer items do not tell by how much chance agrees, and so no interval of kappa holds what it promises."""


def cohen_kappa(
    one: Sequence[Hashable],
    other: Sequence[Hashable],
    weights: Literal["none", "linear", "quadratic"] = "none",
    confidence: float = 0.95,
) -> Estimate:
    """Agreement beyond chance of two raters over the same items (Cohen 1960; weighted, 1968).

    With weights the grades must be numbers, and a disagreement costs their distance or its square; so grades that
    nobody gave need no mention. The standard error is that of Fleiss, Cohen and Everitt (1969). The interval is
    Wilson's of the observed agreement, at the number of items that this error stands for and with Student's t, carried
    over to kappa: it has width where all items agree, and ends at 1. Fewer than ten items have none. Where chance alone
    agrees always (one grade throughout) kappa does not exist: ValueError.
    """
    if len(one) != len(other) or not one:
        raise ValueError(f"two raters must grade the same items, not {len(one)} and {len(other)}")
    grades = sorted(set(one) | set(other), key=lambda grade: (str(type(grade)), grade))
    place = {grade: index for index, grade in enumerate(grades)}
    table = np.zeros((len(grades), len(grades)))
    for left, right in zip(one, other, strict=True):
        table[place[left], place[right]] += 1
    n = len(one)
    table /= n
    if weights == "none":
        agreement = np.eye(len(grades))
    else:
        scale = numbers(np.asarray(grades, dtype=np.float64), "grades")
        distance = np.abs(scale[:, None] - scale[None, :]) ** (1 if weights == "linear" else 2)
        agreement = 1 - distance / max(float(distance.max()), 1e-300)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    observed = float((agreement * table).sum())
    chance = float(rows @ agreement @ columns)
    if math.isclose(chance, 1.0):
        raise ValueError("both raters gave one grade throughout: agreement beyond chance does not exist")
    kappa = (observed - chance) / (1 - chance)
    lean = (agreement @ columns)[:, None] + (rows @ agreement)[None, :]
    inner = float((table * (agreement - lean * (1 - kappa)) ** 2).sum())
    variance = (inner - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    error = math.sqrt(max(variance, 0.0))
    method = f"Cohen's kappa, weights {weights}"
    if n < FEWEST_ITEMS:
        return Estimate(kappa, n, error, confidence=confidence, method=f"{method}: too few items for an interval")
    spread = (error * (1 - chance)) ** 2
    effective = observed * (1 - observed) / spread if spread > 1e-12 and 0 < observed < 1 else float(n)
    bounds = wilson_bounds(min(max(observed, 0.0), 1.0), effective, t_quantile(confidence, n - 1))
    low, high = (min(max((bound - chance) / (1 - chance), -1.0), 1.0) for bound in bounds)
    return Estimate(kappa, n, error, min(low, kappa), max(high, kappa), confidence, f"{method}, Wilson")


def correlation(
    one: ArrayLike, other: ArrayLike, method: Literal["pearson", "spearman"] = "spearman", confidence: float = 0.95
) -> Estimate:
    """Correlation with Fisher's interval (with Bonett and Wright's variance for ranks, 2000).

    ValueError for columns of different length, fewer than four pairs, or a column that is constant.
    """
    from scipy import stats

    left, right = numbers(one, "left"), numbers(other, "right")
    if left.size != right.size or left.size < 4:
        raise ValueError(f"a correlation needs four pairs or more, not {left.size} and {right.size} numbers")
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        raise ValueError("one of the columns is constant: there is no correlation")
    if method == "pearson":
        value, spread = float(stats.pearsonr(left, right)[0]), 1.0
    else:
        value = float(stats.spearmanr(left, right)[0])
        spread = 1 + value * value / 2
    if abs(value) >= 1 - 1e-12:
        return Estimate(value, left.size, confidence=confidence, method=f"{method}, exact line: no interval")
    reach = normal_quantile(confidence) * math.sqrt(spread / (left.size - 3))
    centre = math.atanh(value)
    return Estimate(
        value,
        left.size,
        (1 - value * value) * math.sqrt(spread / (left.size - 3)),
        math.tanh(centre - reach),
        math.tanh(centre + reach),
        confidence,
        f"{method}, Fisher",
    )
