"""Best of n and rejection sampling: the samples of a chat against each other, the losers as pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from batchchat.errors import UsageError
from batchchat.recipe.keeping import Best
from batchchat.results.forms import preference
from batchchat.results.sample import Sample
from batchchat.scoring.base import column
from batchchat.selection.stage import Remove, WritePair


def score_by(metric: str, metrics: Iterable[str]) -> Callable[[Sample], float | None]:
    """What a sample has of a metric, or in a column of this name; None where it has no number there."""
    if metric in tuple(metrics):
        return lambda sample: sample.means.get(metric)

    def value(sample: Sample) -> float | None:
        found = column(sample.answered.columns, metric)
        return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None

    return value


class BestOf:
    """Keeps the best samples of each chat, the first of equals before the others; `write_pair` gets the pairs."""

    def __init__(self, step: Best, score: Callable[[Sample], float | None], write_pair: WritePair):
        self._step = step
        self._score = score
        self._write_pair = write_pair

    def apply(self, samples: Iterable[Sample], remove: Remove) -> Iterator[Sample]:
        seen: set[str] = set()
        for chat_id, several in groupby(samples, key=lambda sample: sample.id):
            if chat_id in seen:
                raise UsageError(
                    f"keep.best: the samples of chat {chat_id} do not stand one after the other; sort the file by chat"
                )
            seen.add(chat_id)
            yield from self._chosen(list(several), remove)

    def _chosen(self, several: list[Sample], remove: Remove) -> Iterator[Sample]:
        step = self._step
        scores = {place: score for place, sample in enumerate(several) if (score := self._score(sample)) is not None}
        ranked = sorted(scores, key=lambda place: -scores[place])
        best = [place for place in ranked[: step.count] if step.at_least is None or scores[place] >= step.at_least]
        if best and step.pairs != "none":
            self._pair(several, scores, best[0], [place for place in reversed(ranked) if place not in best])
        for place, sample in enumerate(several):
            if place in best:
                yield sample
            elif place not in scores:
                remove(sample, f"it has no score by {step.by}")
            elif step.at_least is not None and scores[place] < step.at_least:
                remove(sample, f"it has {scores[place]:.6g} by {step.by}, less than {step.at_least:g}")
            else:
                remove(
                    sample,
                    f"it has {scores[place]:.6g} by {step.by}, sample {several[best[0]].answered.sample} has "
                    f"{scores[best[0]]:.6g}",
                )

    def _pair(self, several: list[Sample], scores: dict[int, float], best: int, worse: list[int]) -> None:
        """`worse` begins with the lowest score."""
        for place in worse[:1] if self._step.pairs == "worst" else worse:
            if scores[best] - scores[place] > self._step.margin:
                pair = preference(several[best], several[place], scores[best], scores[place])
                if pair["chosen"] != pair["rejected"]:
                    self._write_pair(pair)
