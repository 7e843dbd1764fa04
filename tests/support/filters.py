"""A filter as users write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def short(row: Mapping[str, Any]) -> Any:
    """Whether the last answer is short, or why it is not."""
    answer = row["messages"][-1]["content"]
    if answer == "boom":
        raise RuntimeError("boom")
    if answer == "odd":
        return 3
    return True if len(answer) < 30 else f"{len(answer)} characters are too many"
