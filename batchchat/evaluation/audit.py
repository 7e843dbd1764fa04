"""What a judge's grades say about the judge: gathered answer by answer, summed up at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from batchchat.scoring.judging import (
    PairOutcome,
    audit_pairs,
    human_agreement,
    length_bias,
    parse_failures,
    repeat_agreement,
)
from batchchat.scoring.statistics import Estimate, length_controlled_win_rate, win_rate

Figure = Estimate | str
"""An estimate, or why there is none."""


class Audit:
    """Keeps a few numbers of each judged answer. The figures are named as `scoring.metric_names.JUDGE_FIGURES`."""

    def __init__(self, kind: Literal["pointwise", "pairwise"]):
        self._kind = kind
        self._grades: list[float | None] = []
        self._lengths: list[float] = []
        self._repeats: list[Sequence[float | None]] = []
        self._judged: list[float | None] = []
        self._human: list[float | None] = []
        self._pairs: list[PairOutcome] = []
        self._chats: list[str] = []
        self._difficulty: list[float | None] = []

    def grade(self, grades: Sequence[float | None], length: float, human: float | None) -> None:
        """The grades that the judge gave to one answer of `length` characters; None where it could not be read."""
        self._take(grades, length, human)

    def compare(
        self,
        chat_id: str,
        pairs: Sequence[PairOutcome],
        gap: float,
        human: float | None,
        difficulty: float | None = None,
    ) -> None:
        """The outcomes of one pair; `gap` is the judged answer's length minus the other's, `difficulty` the question's,
        None where it is not known."""
        self._difficulty += [difficulty] * len(pairs)
        self._pairs += pairs
        self._chats += [chat_id] * len(pairs)
        self._take([pair.value for pair in pairs], gap, human)

    def _take(self, grades: Sequence[float | None], length: float, human: float | None) -> None:
        self._grades += grades
        self._lengths += [length] * len(grades)
        self._repeats.append(grades)
        self._judged.append(grades[0])
        self._human.append(human)

    def figures(self) -> dict[str, Figure]:
        """Every figure by name."""
        if not self._grades:
            return {"parse_failures": "nothing was judged"}
        found: dict[str, Figure] = {}
        if self._kind == "pairwise":
            found |= self._of_pairs()
        else:
            found["parse_failures"] = parse_failures(self._grades)
        found["length_bias"] = _or_reason(lambda: length_bias(self._grades, self._lengths))
        found["repeat_agreement"] = _or_reason(lambda: repeat_agreement(self._repeats))
        try:
            found["human_agreement"], found["kappa"] = human_agreement(self._judged, self._human)
        except ValueError as error:
            found["human_agreement"] = found["kappa"] = str(error)
        return found

    def _of_pairs(self) -> dict[str, Figure]:
        audit = audit_pairs(self._pairs)
        read = [(pair.value, place) for place, pair in enumerate(self._pairs) if pair.value is not None]
        outcomes = [value for value, _ in read]
        chats = [self._chats[place] for _, place in read]
        gaps = [self._lengths[place] for _, place in read]
        known = [self._difficulty[place] for _, place in read]
        hard = None if None in known else [value for value in known if value is not None]
        return {
            "win_rate": _or_reason(lambda: win_rate(outcomes, chats)),
            "length_controlled_win_rate": _or_reason(lambda: length_controlled_win_rate(outcomes, gaps, hard)),
            "flips": audit.flips or "no pair had a winner in both orders",
            "disagreements": audit.disagreements or "no pair could be read",
            "first_place": audit.first_place or "no verdict had a winner",
            "parse_failures": audit.failures,
        }


def _or_reason(estimate: Callable[[], Estimate]) -> Figure:
    """The estimate, or in words why these numbers do not give one."""
    try:
        return estimate()
    except ValueError as error:
        return str(error)
