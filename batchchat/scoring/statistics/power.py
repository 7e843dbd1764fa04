"""What differences a comparison of this size can see: power of a paired comparison of means (normal approximation)."""

from __future__ import annotations

import math
from statistics import NormalDist

_NORMAL = NormalDist()


def detectable_difference(deviation: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest true difference that a two-sided test at `alpha` over `n` pairs finds with chance `power`.

    `deviation` is the standard deviation of the pairs' differences: sqrt(share of rows that changed) where both runs
    score 0 or 1 and are about equally good. With clusters, n is their number and the deviation that of their means.
    """
    if deviation < 0 or n < 1 or not 0 < alpha < 1:
        raise ValueError(f"no power for a deviation of {deviation}, {n} pairs and alpha {alpha}")
    if not alpha < power < 1:
        raise ValueError(f"power must lie between alpha and 1, not {power}")
    return (_NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)) * deviation / math.sqrt(n)
