"""What a stage is: a generator that lets samples through and says of each other one why it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from batchchat.results.sample import Sample

Remove = Callable[[Sample, str], None]
"""Takes a sample that does not go on, and the reason."""

WritePair = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Stage:
    """One step of the recipe's `keep`. Samples come in the order of the input, those of a chat one after the other;
    each either goes on, in the same order, or is removed."""

    kind: str
    condition: str
    """The step as the recipe says it, in one line."""
    apply: Callable[[Iterable[Sample], Remove], Iterator[Sample]]
