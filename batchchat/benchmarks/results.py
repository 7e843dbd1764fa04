"""What measurements of any kind have in common: the middle one counts, ratios are to the first, a table shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median_low
from typing import Any

Result = dict[str, Any]


def middle(results: Sequence[Result], figure: str) -> Result:
    """The result whose `figure` is the median, the lower one of two."""
    wanted = median_low([result[figure] for result in results])
    return next(result for result in results if result[figure] == wanted)


def add_ratios(results: Sequence[Result]) -> None:
    """Give each result the `ratio` of its tokens per second to the first one's."""
    for result in results:
        result["ratio"] = result["tokens_per_second"] / results[0]["tokens_per_second"]


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
