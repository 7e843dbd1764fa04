"""Score intervals of shares and of paired shares, which have width however few rows there are, clustered or not."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from batchchat.scoring.statistics.estimate import Estimate, Numbers, cluster_sums, normal_quantile, numbers, t_quantile


def wilson(successes: float, n: float, confidence: float = 0.95) -> Estimate:
    """A proportion with Wilson's score interval (1927), which stays within 0 and 1 and has width at both ends.

    Counts need not be whole: an effective number of rows is not.
    """
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} successes of {n} is no proportion")
    low, high = wilson_bounds(successes / n, n, normal_quantile(confidence))
    share = successes / n
    error = math.sqrt(share * (1 - share) / n)
    return Estimate(share, round(n), error, low, high, confidence, "Wilson", clusters=round(n))


def wilson_bounds(share: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a share of `n` rows, reaching `z` standard errors."""
    shrink = 1 + z * z / n
    centre = (share + z * z / (2 * n)) / shrink
    reach = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / shrink
    # At 0 and n successes the bound is exactly 0 or 1; rounding must not push it outside.
    return (0.0 if share == 0 else centre - reach), (1.0 if share == 1 else centre + reach)


def clustered_wilson(scores: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Estimate:
    """A share of scores of 0 and 1 that come in clusters: Wilson's interval at the effective number of rows.

    As Korn and Graubard (1998) do for surveys: the rows divided by the design effect, the clustered variance over that
    of independent rows, and Student's t with as many degrees of freedom as clusters less one.
    """
    values = numbers(scores)
    share, n, error, effective, quantile, groups = _clustered(values, clusters, confidence)
    if groups < 2:
        return Estimate(share, n, confidence=confidence, clusters=groups)
    low, high = wilson_bounds(share, effective, quantile)
    method = f"Wilson, clustered, effective n {effective:.1f}"
    return Estimate(share, n, error, low, high, confidence, method, clusters=groups)


def tango(gained: float, lost: float, n: float, confidence: float = 0.95) -> Estimate:
    """The difference of two paired shares, (gained - lost) / n, with Tango's score interval (1998).

    `gained` rows are right in the first run alone, `lost` in the second alone. It has width where no row changed, and
    its one-sided error stays near the nominal one from a handful of rows on. Counts need not be whole.
    """
    if gained < 0 or lost < 0 or gained + lost > n or n == 0:
        raise ValueError(f"{gained} gained and {lost} lost do not fit into {n} rows")
    low, high = tango_bounds(gained, lost, n, normal_quantile(confidence))
    gap = (gained - lost) / n
    error = math.sqrt(max((gained + lost) / n - gap * gap, 0.0) / n)
    return Estimate(gap, round(n), error, low, high, confidence, "Tango", clusters=round(n))


def tango_bounds(gained: float, lost: float, n: float, z: float) -> tuple[float, float]:
    """Tango's interval of (gained - lost) / n, reaching `z` standard errors: the differences that a score test does
    not reject. Found by bisection, since the test statistic falls as the difference grows."""
    gap = (gained - lost) / n

    def statistic(difference: float) -> float:
        # The chance of a loss given this difference, by maximum likelihood: the larger root of 2n q² + B q + C = 0.
        linear = -gained - lost + (2 * n - gained + lost) * difference
        constant = -lost * difference * (1 - difference)
        root = math.sqrt(max(linear * linear - 8 * n * constant, 0.0))
        chance = (root - linear) / (4 * n)
        variance = n * (2 * chance + difference * (1 - difference))
        distance = gained - lost - n * difference
        if variance <= 0:
            return math.copysign(math.inf, distance) if distance else 0.0
        return distance / math.sqrt(variance)

    def bound(outside: float, reach: float) -> float:
        inside, outer = gap, outside
        for _ in range(60):
            middle = (inside + outer) / 2
            if abs(statistic(middle)) <= reach:
                inside = middle
            else:
                outer = middle
        return inside

    return (-1.0 if gap <= -1 else bound(-1.0, z)), (1.0 if gap >= 1 else bound(1.0, z))


def clustered_tango(gaps: ArrayLike, clusters: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The mean of paired differences of -1, 0 and 1 that come in clusters: Tango's interval at the effective number of
    rows, as in `clustered_wilson`."""
    values = numbers(gaps, "gaps")
    gap, n, error, effective, quantile, groups = _clustered(values, clusters, confidence)
    if groups < 2:
        return Estimate(gap, n, confidence=confidence, clusters=groups)
    gained, lost = (float((values > 0).mean()) * effective, float((values < 0).mean()) * effective)
    low, high = tango_bounds(gained, lost, effective, quantile)
    method = f"Tango, clustered, effective n {effective:.1f}"
    return Estimate(gap, n, error, low, high, confidence, method, clusters=groups)


def _clustered(
    values: Numbers, clusters: ArrayLike, confidence: float
) -> tuple[float, int, float | None, float, float, int]:
    """(mean, rows, clustered standard error, effective rows, quantile, clusters)."""
    sums, sizes = cluster_sums(values, clusters)
    n, groups = values.size, sums.size
    centre = float(values.mean())
    if groups < 2:
        return centre, n, None, float(groups), 0.0, groups
    residuals = sums - sizes * centre
    variance = float(residuals @ residuals) * groups / (groups - 1) / n**2
    independent = float(np.var(values)) / n
    # Clusters whose rows all agree say no more than one row each; so do rows of which none differs.
    fewest = n**2 / float((sizes**2).sum())
    effective = min(float(n), independent / variance * n) if variance > 0 and independent > 0 else fewest
    return centre, n, math.sqrt(variance), max(effective, 1.0), t_quantile(confidence, groups - 1), groups
