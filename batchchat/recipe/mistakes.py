"""All mistakes of a recipe at once, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from batchchat.errors import UsageError


@dataclass(frozen=True)
class Spot:
    """Where something was written: `recipe.yaml:7`, or `override 'name=…'`; `order` sorts spots for reading."""

    order: int
    text: str


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong: where, the dotted field ("" for the recipe as a whole), and a sentence that names
    what was given, what is allowed, and what to write."""

    spot: Spot
    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.spot.text}: {self.text}"


class RecipeError(UsageError):
    """Everything that is wrong with a recipe and its overrides, in the order in which it was written."""

    def __init__(self, mistakes: Sequence[Mistake]):
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.spot.order))
        lines = [str(mistake) for mistake in self.mistakes]
        if len(lines) > 1:
            lines = [f"the recipe has {len(lines)} mistakes:", *(f"  {line}" for line in lines)]
        super().__init__("\n".join(lines))


def dotted(path: Sequence[str | int]) -> str:
    """`("generation", "stop", 0)` as `generation.stop[0]`."""
    out = ""
    for piece in path:
        out += f"[{piece}]" if isinstance(piece, int) else f".{piece}" if out else piece
    return out
