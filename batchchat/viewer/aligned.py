"""Samples of several runs side by side, by chat id and sample number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchchat.results import Results, Sample

Aligned = tuple[Sample | None, ...]
"""One sample as each run has it; None where a run has no such chat."""


def align(runs: Sequence[Results]) -> Iterator[Aligned]:
    """Every sample of the first run in its order with its like in the others, then those that only others have."""
    first, *others = runs
    seen: set[tuple[str, int]] = set()
    for sample in first:
        if others:
            seen.add(sample.key)
        yield (sample, *(other.find(*sample.key) for other in others))
    for place, run in enumerate(others, start=1):
        for sample in run.besides(seen):
            seen.add(sample.key)
            later = (other.find(*sample.key) for other in runs[place + 1 :])
            yield (*[None] * place, sample, *later)


def same_question(one: Sample, other: Sample) -> bool:
    """Whether two runs asked the same under one id."""
    if one is other:
        return True
    return one.answered.chat is None or other.answered.chat is None or one.answered.asked == other.answered.asked


def same_answer(one: Sample | None, other: Sample | None) -> bool:
    """Whether two runs answered alike, to the letter."""
    if one is None or other is None:
        return one is other
    return one.state == other.state and [(message.content, message.tool_calls) for message in one.answered.answers] == [
        (message.content, message.tool_calls) for message in other.answered.answers
    ]
