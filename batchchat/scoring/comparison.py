"""Two runs over the same chats, metric by metric: the difference, whether it is real, and what could have been seen."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from batchchat.scoring.statistics import (
    Estimate,
    Test,
    detectable_difference,
    holm,
    mcnemar,
    paired_interval,
    paired_permutation,
)

Key = tuple[str, int, int]
"""(chat id, sample, turn): what pairs the scores of two runs."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric of two runs, paired. `difference` is ours minus theirs, with the interval of
    `paired_interval`.

    `adjusted_p` is the test's p-value after Holm's correction over everything compared together. `changed` are the
    keys whose scores differ, largest gain of ours first; `only_ours` and `only_theirs` had a score in one run alone
    and are in no figure. `detectable` is the smallest true difference that this many chats show with a chance of
    80 %, or None for a single chat.
    """

    metric: str
    ours: float
    theirs: float
    difference: Estimate
    test: Test
    adjusted_p: float
    changed: tuple[Key, ...]
    only_ours: tuple[Key, ...]
    only_theirs: tuple[Key, ...]
    detectable: float | None


def compare_metric(metric: str, ours: Mapping[Key, float], theirs: Mapping[Key, float], seed: int = 0) -> Comparison:
    """The comparison of one metric over the keys that both runs scored; ValueError where there is none.

    McNemar's test where all scores are 0 or 1 and each chat has one, the paired permutation test otherwise, with
    whole chats exchanged where turns or samples share one.
    """
    keys = [key for key in ours if key in theirs]
    if not keys:
        raise ValueError(f"the two runs share no scored answer of '{metric}': were they run over the same input?")
    left = np.array([ours[key] for key in keys])
    right = np.array([theirs[key] for key in keys])
    chats = _labels([key[0] for key in keys])
    alone = int(chats.max()) + 1 == len(keys)
    clusters = None if alone else chats
    if alone and bool(np.isin(np.concatenate([left, right]), (0.0, 1.0)).all()):
        test = mcnemar(int((left > right).sum()), int((left < right).sum()), len(keys))
    else:
        test = paired_permutation(left, right, clusters, seed=seed)
    gaps = left - right
    order = np.argsort(-gaps, kind="stable")
    return Comparison(
        metric,
        float(left.mean()),
        float(right.mean()),
        paired_interval(left, right, chats, seed=seed),
        test,
        test.p_value,
        tuple(keys[place] for place in order if gaps[place] != 0),
        tuple(key for key in ours if key not in theirs),
        tuple(key for key in theirs if key not in ours),
        _detectable(gaps, chats),
    )


def compare_all(
    ours: Mapping[str, Mapping[Key, float]], theirs: Mapping[str, Mapping[Key, float]], seed: int = 0
) -> tuple[Comparison, ...]:
    """Every metric that both runs have, their p-values corrected together (Holm)."""
    found = tuple(compare_metric(metric, ours[metric], theirs[metric], seed) for metric in ours if metric in theirs)
    return correct_together({"": found})[""]


def correct_together(found: Mapping[str, tuple[Comparison, ...]]) -> dict[str, tuple[Comparison, ...]]:
    """Comparisons of several pairs of runs with Holm's correction over all pairs and metrics at once."""
    raw = {(pair, place): one.test.p_value for pair, several in found.items() for place, one in enumerate(several)}
    adjusted = holm(raw)
    return {
        pair: tuple(replace(one, adjusted_p=adjusted[pair, place]) for place, one in enumerate(several))
        for pair, several in found.items()
    }


def _labels(names: Sequence[Hashable]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Names as numbers from 0, in order of first appearance."""
    place: dict[Hashable, int] = {}
    return np.array([place.setdefault(name, len(place)) for name in names], dtype=np.int64)


def _detectable(
    gaps: np.ndarray[tuple[int], np.dtype[np.float64]], chats: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> float | None:
    means = np.bincount(chats, weights=gaps) / np.bincount(chats)
    return detectable_difference(float(means.std(ddof=1)), means.size) if means.size > 1 else None
