"""The scorers that come with batchchat, by name, each imported when a recipe first asks for it.

A scorer module holds `Options` (a frozen `ScorerOptions`) and `make(options) -> ScoreFunction`. With
`NEEDS_REFERENCE = False` it also scores rows without a reference, and `missing(reference)` says what is none where an
empty list is not. `DETAILS` are the names that its scores' details may have (None: any; `details(options)` where they
follow from the options), and `overall` makes the figures `OVERALL` of a whole run from the details' sums. A further
scorer is one file and one line here.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from batchchat.errors import UsageError
from batchchat.scoring.base import Scorer, ScorerOptions, is_missing

_ROOM = "batchchat.scoring.scorers"
SCORERS: Mapping[str, str] = {
    "exact": f"{_ROOM}.exact",
    "includes": f"{_ROOM}.includes",
    "regex": f"{_ROOM}.pattern",
    "numeric": f"{_ROOM}.numeric",
    "math": f"{_ROOM}.symbolic",
    "choice": f"{_ROOM}.choice",
    "f1": f"{_ROOM}.f1",
    "bleu": f"{_ROOM}.bleu",
    "chrf": f"{_ROOM}.chrf",
    "rouge": f"{_ROOM}.rouge",
    "json": f"{_ROOM}.json_value",
    "tool_call": f"{_ROOM}.tool_call",
    "ifeval": f"{_ROOM}.ifeval",
    "length": f"{_ROOM}.length",
    "language": f"{_ROOM}.language",
    "refusal": f"{_ROOM}.refusal",
    "python": f"{_ROOM}.custom",
}


def options_class(name: str) -> type[ScorerOptions]:
    """The options model of a scorer, for the recipe's schema. Raises UsageError with the nearest name."""
    found: type[ScorerOptions] = _module(name).Options
    return found


def figure_names(name: str, options: ScorerOptions) -> tuple[str, ...] | None:
    """The names of a scorer's figures besides its mean; None where only its scores tell."""
    module = _module(name)
    details: tuple[str, ...] | None = getattr(module, "DETAILS", ())
    if hasattr(module, "details"):
        details = module.details(options)
    return None if details is None else (*details, *getattr(module, "OVERALL", ()))


def make_scorer(name: str, options: ScorerOptions | Mapping[str, Any] | None = None) -> Scorer:
    """A ready scorer.

    Raises pydantic's ValidationError for options that are wrong (a regular expression or JSON schema that is not
    one, included), UsageError for an unknown scorer or a function that cannot be imported, EnvironmentFault where
    the library that it needs is not installed: all of them before the first row.
    """
    module = _module(name)
    checked: ScorerOptions = (
        options if isinstance(options, ScorerOptions) else module.Options.model_validate(dict(options or {}))
    )
    return Scorer(
        checked.name or name,
        checked,
        module.make(checked),
        getattr(module, "NEEDS_REFERENCE", True),
        getattr(module, "missing", is_missing),
        getattr(module, "overall", None),
    )


def make_scorers(entries: Sequence[str | Mapping[str, Any]]) -> tuple[Scorer, ...]:
    """Scorers from a recipe's `scoring:` list: `- exact`, or `- numeric: {reference: answer}`.

    Raises what `make_scorer` raises, and UsageError for an entry of another shape or a metric named twice.
    """
    scorers: list[Scorer] = []
    for place, entry in enumerate(entries):
        if isinstance(entry, str):
            name, options = entry, None
        elif isinstance(entry, Mapping) and len(entry) == 1:
            name, options = next(iter(entry.items()))
        else:
            raise UsageError(
                f"scoring[{place}] must name one scorer, such as `- exact` or `- numeric: {{reference: answer}}`, "
                f"not {entry!r}; give every scorer its own line"
            )
        scorer = make_scorer(name, options)
        if any(scorer.name == other.name for other in scorers):
            raise UsageError(
                f"scoring[{place}] is a second metric named '{scorer.name}'; give it another one with `name:`"
            )
        scorers.append(scorer)
    return tuple(scorers)


def _module(name: str) -> Any:
    if name not in SCORERS:
        near = difflib.get_close_matches(name, SCORERS, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise UsageError(f"there is no scorer '{name}'; {hint}choose one of: {', '.join(SCORERS)}")
    return import_module(SCORERS[name])
