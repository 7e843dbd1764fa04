"""Stages that look at one sample at a time: conditions, functions of the user's own, contamination."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from batchchat.plugins.functions import load_function
from batchchat.results.handing import handed
from batchchat.results.sample import Sample
from batchchat.results.where import Wanted
from batchchat.selection.stage import Remove

Verdict = Callable[[Sample], str | None]
"""Why a sample is removed; None for one that goes on."""


def filtering(verdict: Verdict) -> Callable[[Iterable[Sample], Remove], Iterator[Sample]]:
    """The stage that a verdict on single samples makes."""

    def apply(samples: Iterable[Sample], remove: Remove) -> Iterator[Sample]:
        for sample in samples:
            reason = verdict(sample)
            if reason is None:
                yield sample
            else:
                remove(sample, reason)

    return apply


def by_condition(text: str, wanted: Wanted) -> Verdict:
    return lambda sample: None if wanted(sample) else f"it is not so that {text}"


def by_function(target: str) -> Verdict:
    """What the user's function says. Raises UsageError where there is none; what it raises removes the sample."""
    function = load_function(target, "keep.function")

    def verdict(sample: Sample) -> str | None:
        try:
            found = function(handed(sample))
        except Exception as error:  # the user's own code, which any row may break
            return f"{target} failed: {type(error).__name__}: {error}"
        if isinstance(found, str):
            return f"{target}: {found}"
        if isinstance(found, bool):
            return None if found else f"{target} says no"
        return f"{target} returned {type(found).__name__}, not true, false or a text"

    return verdict
