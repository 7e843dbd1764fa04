"""From the scores of single answers to what a run is worth: means with intervals, and what was counted apart.

Nothing is left out in silence: every answer is in the mean or in a count that says why not.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

import numpy as np

from batchchat.scoring.base import Score
from batchchat.scoring.distributions import Histogram, histogram
from batchchat.scoring.metric_names import SHARES
from batchchat.scoring.statistics import Estimate, majority_vote, pass_at_k, score_interval
from batchchat.scoring.treatments import Condition, Treatment, Treatments

_CONDITIONS: tuple[Condition, ...] = ("complete", "failed", "empty", "truncated", "refused")
Outcome = Literal["scored", "unscored", "skipped"]
_OUTCOMES: tuple[Outcome, ...] = ("scored", "unscored", "skipped")


@dataclass(frozen=True, slots=True)
class ScoredAnswer:
    """One answer's score in its place. `score` is None where the chat failed and there was nothing to score."""

    chat_id: str
    sample: int
    turn: int
    condition: Condition
    score: Score | None


@dataclass(frozen=True)
class Summary:
    """One metric over a run, or over the part of it with one value of a column.

    `estimate` is None where nothing could be scored. Of `counts`, `answers` is the sum of `scored` (in the mean, those
    counted wrong included), `unscored` (no reference) and `skipped` (left out by a treatment), and also the sum of
    the conditions; `scorer_errors` are counted beside. `details` are means of the scorer's further numbers over the
    answers that it scored; `detail_sums` their sums. `histogram` is of the scores in the mean.
    """

    metric: str
    estimate: Estimate | None
    counts: Mapping[str, int]
    details: Mapping[str, float] = field(default_factory=dict)
    detail_sums: Mapping[str, float] = field(default_factory=dict)
    pass_at: Mapping[int, float] = field(default_factory=dict)
    majority: float | None = None
    histogram: Histogram | None = None

    def metrics(self, part: str = "") -> dict[str, float | None]:
        """The flat names that gates and comparisons use, behind the metric's own: `mean`, `n`, `low`, `high`,
        `standard_error`, `pass@k`, `majority`, the details, and the shares of all answers that are `unscored`,
        `scorer_errors`, `failed`, `empty`, `truncated` and `refused`.

        `part` (as `category=math`) comes in brackets at the end: `numeric.mean[category=math]`. ValueError where the
        scorer named a detail like one of these.
        """
        found, answers = self.estimate, self.counts["answers"]
        flat: dict[str, float | None] = {
            "mean": found.value if found else None,
            "n": float(found.n if found else 0),
            "standard_error": found.standard_error if found else None,
            "low": found.low if found else None,
            "high": found.high if found else None,
            **{f"pass@{k}": value for k, value in self.pass_at.items()},
            **({} if self.majority is None else {"majority": self.majority}),
            **{name: self.counts[name] / answers if answers else None for name in SHARES},
        }
        if clash := flat.keys() & self.details.keys():
            raise ValueError(f"the details of '{self.metric}' may not be named {', '.join(sorted(clash))}")
        flat.update(self.details)
        suffix = f"[{part}]" if part else ""
        return {f"{self.metric}.{name}{suffix}": value for name, value in flat.items()}


class Tally:
    """Takes the scores of one metric one by one and says at any time what they come to.

    Keeps 16 bytes of each answer, and more where `samples`, the number of answers per chat, exceeds 1.
    """

    def __init__(self, metric: str, treatments: Treatments | None = None, samples: int = 1, worst: float = 0.0):
        """`worst` is what an answer counts that is treated as wrong."""
        self._metric = metric
        self._rule = treatments or Treatments()
        self._worst = worst
        self._several = samples > 1
        self._counts = Counter(dict.fromkeys(("answers", *_OUTCOMES, "scorer_errors", *_CONDITIONS), 0))
        self._values, self._clusters = array("d"), array("q")
        self._turns: defaultdict[tuple[int, int], list[tuple[float, str | None]]] = defaultdict(list)
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._detailed: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """The counts so far, as in `Summary`."""
        return self._counts

    def add(self, answer: ScoredAnswer) -> None:
        """Count one answer in."""
        score = answer.score
        outcome, value = outcome_of(answer, self._rule, self._worst)
        self._counts.update(("answers", outcome, answer.condition))
        if score is not None and score.status == "error":
            self._counts["scorer_errors"] += 1
        if score is not None and score.status == "scored":
            for name, detail in score.details.items():
                self._sums[name] += detail
                self._detailed[name] += 1
        if outcome == "scored":
            chat = _label(answer.chat_id)
            self._values.append(value)
            self._clusters.append(chat)
            if self._several:
                self._turns[chat, answer.turn].append((value, score.parsed if score else None))

    def summary(self, pass_at: Iterable[int] = (), seed: int = 0) -> Summary:
        """What was added so far.

        The interval is that of `score_interval`, and its standard error clustered by chat. With several samples per
        turn, pass@k averages over the turns with at least k of them, for scores of 0 and 1 (ValueError for others),
        and `majority` is the mean score of the answer that most samples of a turn agree on, by what the scorer read.
        """
        values, clusters = np.array(self._values), np.array(self._clusters, dtype=np.int64)
        return Summary(
            self._metric,
            score_interval(values, clusters, seed=seed) if values.size else None,
            dict(self._counts),
            {name: total / self._detailed[name] for name, total in self._sums.items()},
            dict(self._sums),
            {k: _mean_pass_at(self._turns.values(), k) for k in pass_at},
            _majority(self._turns.values()),
            histogram(Counter(self._values)),
        )


def outcome_of(answer: ScoredAnswer, rule: Treatments, worst: float = 0.0) -> tuple[Outcome, float]:
    """Whether an answer is in the mean, and with what value: `worst` where it is treated as wrong, 0 where it is not
    in the mean."""
    score = answer.score
    treatment: Treatment = "score" if answer.condition == "complete" else getattr(rule, answer.condition)
    if score is not None and score.status == "unscored":
        return "unscored", 0.0
    if treatment != "score":
        return ("scored", worst) if treatment == "wrong" else ("skipped", 0.0)
    if score is None:
        raise ValueError(f"chat {answer.chat_id}: an answer that was generated needs a score")
    if score.value is None:
        return ("scored", worst) if rule.scorer_errors == "wrong" else ("skipped", 0.0)
    return "scored", score.value


def _label(chat_id: str) -> int:
    """64 bits that stand for a chat, in place of its id, which may be long: two of 10 million agree once in 400,000
    runs."""
    return int.from_bytes(blake2b(chat_id.encode(errors="surrogatepass"), digest_size=8).digest(), signed=True)


def _mean_pass_at(turns: Iterable[list[tuple[float, str | None]]], k: int) -> float:
    chances = []
    for samples in turns:
        if any(value not in (0.0, 1.0) for value, _ in samples):
            raise ValueError(f"pass@{k} needs scores of 0 and 1; use it with a scorer that says right or wrong")
        if len(samples) >= k:
            chances.append(pass_at_k(len(samples), sum(value == 1.0 for value, _ in samples), k))
    if not chances:
        raise ValueError(f"pass@{k} needs at least {k} samples per chat; raise generation.samples")
    return sum(chances) / len(chances)


def _majority(turns: Collection[list[tuple[float, str | None]]]) -> float | None:
    """The mean over turns with several samples; one whose samples all hold nothing to read scores 0."""
    if not any(parsed is not None for samples in turns for _, parsed in samples):
        return None
    voted = []
    for samples in turns:
        if len(samples) > 1:
            winner = majority_vote([parsed for _, parsed in samples])
            voted.append(next((value for value, parsed in samples if parsed == winner and parsed is not None), 0.0))
    return sum(voted) / len(voted) if voted else None
