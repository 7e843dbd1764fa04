"""Numbers for axes: round ticks and short names."""

from __future__ import annotations

import math

from batchchat.scoring.distributions import round_step

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers, at most `most` of them, from the last one at or below `low` to the first at or above `high`."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1.0):  # as good as one value
        high = low + max(abs(low), 1.0)
    step = round_step(high - low, most - 2)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def short(value: float) -> str:
    """A number in few characters: 0.25, 12, 3.5k."""
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.4g}{prefix}"
    return f"{value:.4g}"
