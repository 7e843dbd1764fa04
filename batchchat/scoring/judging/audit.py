"""How far a judge can be trusted: does the place decide, or the length, and does it agree with itself and people."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from batchchat.scoring.judging.pairs import PairOutcome
from batchchat.scoring.statistics import Estimate, cohen_kappa, correlation, score_interval, wilson


@dataclass(frozen=True, slots=True)
class PairAudit:
    """Rates over the pairs judged in both orders; None where no pair could tell.

    `flips`: pairs whose winner changed with the order, of those with a winner in both orders. `disagreements`: pairs
    whose outcome changed at all. `first_place`: how often a winner was the answer shown first; 0.5 is fair.
    `failures`: verdicts that could not be read, of two per pair.
    """

    flips: Estimate | None
    disagreements: Estimate | None
    first_place: Estimate | None
    failures: Estimate


def audit_pairs(pairs: Sequence[PairOutcome]) -> PairAudit:
    """The audit of a pairwise judge, with Wilson's intervals. ValueError without pairs."""
    if not pairs:
        raise ValueError("there are no pairs to audit the judge with")
    read = [pair for pair in pairs if pair.value is not None]
    decided = [pair for pair in read if pair.first != "tie" and pair.second != "tie"]
    verdicts = [verdict for pair in pairs for verdict in (pair.first, pair.second)]
    winners = [verdict for verdict in verdicts if verdict in ("A", "B")]
    return PairAudit(
        flips=wilson(sum(pair.flipped for pair in decided), len(decided)) if decided else None,
        disagreements=wilson(sum(pair.disagree for pair in read), len(read)) if read else None,
        first_place=wilson(winners.count("A"), len(winners)) if winners else None,
        failures=wilson(verdicts.count(None), len(verdicts)),
    )


def parse_failures(grades: Sequence[float | None]) -> Estimate:
    """The share of a judge's answers in which no grade could be read."""
    return wilson(sum(grade is None for grade in grades), len(grades))


def length_bias(grades: Sequence[float | None], lengths: Sequence[float]) -> Estimate:
    """Rank correlation of grade and length, over the answers that have a grade.

    For pairs, give each pair's outcome and the difference of the two lengths. A correlation is no proof of bias, as
    better answers may be longer; it is where to look. ValueError where one of the two is constant or under four.
    """
    if len(grades) != len(lengths):
        raise ValueError(f"{len(grades)} grades but {len(lengths)} lengths")
    both = [(grade, length) for grade, length in zip(grades, lengths, strict=True) if grade is not None]
    return correlation([grade for grade, _ in both], [length for _, length in both], "spearman")


def repeat_agreement(repeats: Sequence[Sequence[Hashable | None]]) -> Estimate:
    """How often two of a judge's grades of one item are the same, with an interval clustered by item.

    `repeats[i]` are the grades that item i got; unread ones (None) are left out, and items with fewer than two grades
    say nothing. ValueError where none has two.
    """
    same: list[float] = []
    items: list[int] = []
    for item, grades in enumerate(repeats):
        known = [grade for grade in grades if grade is not None]
        for place, grade in enumerate(known):
            for other in known[place + 1 :]:
                same.append(float(grade == other))
                items.append(item)
    if not same:
        raise ValueError("no item was graded twice: raise the judge's samples to measure how it agrees with itself")
    return score_interval(np.asarray(same), np.asarray(items))


def human_agreement(
    judge: Sequence[Hashable | None],
    human: Sequence[Hashable | None],
    weights: Literal["none", "linear", "quadratic"] = "none",
) -> tuple[Estimate, Estimate]:
    """(share of equal grades, Cohen's kappa) over the items that both graded. ValueError where there is none."""
    if len(judge) != len(human):
        raise ValueError(f"{len(judge)} grades of the judge but {len(human)} of people")
    both = [(one, other) for one, other in zip(judge, human, strict=True) if one is not None and other is not None]
    if not both:
        raise ValueError("no item has both a judge's grade and a human one")
    ours, theirs = [one for one, _ in both], [other for _, other in both]
    return wilson(sum(one == other for one, other in both), len(both)), cohen_kappa(ours, theirs, weights)
