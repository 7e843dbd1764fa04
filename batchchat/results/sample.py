"""One sample of a chat with everything that is known of it, and the few figures by which samples are found."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from batchchat.evaluation import Answered
from batchchat.scoring.base import visible_answer

State = Literal["answered", "failed", "open"]
"""`open`: the run has not come to its end yet."""


@dataclass(frozen=True)
class Sample:
    """An independent answer to a chat. `turns[k]` are the facts of `answered.answers[k]`, as in outputs.jsonl; `reason`
    is why the sample failed; `scores` are its lines of scores.jsonl."""

    answered: Answered
    state: State
    turns: tuple[Mapping[str, Any], ...]
    reason: str | None = None
    scores: tuple[Mapping[str, Any], ...] = ()
    raw: str = ""
    """The row's text where it could not be read."""

    @property
    def id(self) -> str:
        return self.answered.id

    @property
    def key(self) -> tuple[str, int]:
        """What pairs the samples of two runs."""
        return self.answered.id, self.answered.sample

    @property
    def question(self) -> str:
        """What the user said first."""
        chat = self.answered.chat
        told = (message for segment in chat.segments for message in segment) if chat else ()
        return next((message.content or "" for message in told if message.role == "user"), self.raw)

    @property
    def answer(self) -> str:
        """The last answer, without its reasoning."""
        answers = self.answered.answers
        return visible_answer(answers[-1], reasoning=False).text if answers else ""

    @property
    def finish_reason(self) -> str | None:
        """Of the last answer; None where it is not known."""
        reasons = self.answered.finish_reasons
        return reasons[-1] if reasons else None

    @property
    def num_tool_calls(self) -> int:
        """Of all answers."""
        return sum(len(message.tool_calls) for message in self.answered.answers)

    def tokens(self, name: Literal["prompt_tokens", "completion_tokens"]) -> int | None:
        """Of all turns; None where they were not counted."""
        counts = [turn.get(name) for turn in self.turns]
        return sum(counts) if counts and all(isinstance(count, int) for count in counts) else None  # type: ignore[arg-type]

    @property
    def means(self) -> dict[str, float]:
        """By metric, the mean over the turns of what counts; metrics without any are left out."""
        return mean_scores(self.scores)


def mean_scores(lines: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The mean of `counted` by metric."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for line in lines:
        if line["counted"] is not None:
            found[line["metric"]].append(line["counted"])
    return {metric: sum(values) / len(values) for metric, values in found.items()}
