"""Scorers by name, each imported when a recipe first asks for it.

A scorer module holds `Options` (a frozen `ScorerOptions`) and `make(options) -> ScoreFunction`. With
`NEEDS_REFERENCE = False` it also scores rows without a reference, and `missing(reference)` says what is none where an
empty list is not. `DETAILS` are the names that its scores' details may have (None: any; `details(options)` where they
follow from the options), and `overall` makes the figures `OVERALL` of a whole run from the details' sums. A further
scorer is one file and one line in `plugins.tables`, or a package with an entry point.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.plugins.tables import SCORERS
from batchchat.scoring.base import Scorer, ScorerOptions, is_missing


def figure_names(name: str, options: ScorerOptions) -> tuple[str, ...] | None:
    """The names of a scorer's figures besides its mean; None where only its scores tell."""
    module = SCORERS[name]
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
    module = SCORERS[name]
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
