"""Which requests share a padded batch.

A padded batch computes rows x (longest prompt + longest answer) token places, and as many decode steps as its longest
answer may have. So rows of like length belong together, and the answer's limit counts first: a row that could stop
early but stays in a long batch costs as much as one that goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from batchchat.chats import Request


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """A batch and its token places: `needed` by its rows if each answer reaches its limit, `padded` in all."""

    requests: tuple[Request, ...]
    needed: int
    padded: int

    @property
    def efficiency(self) -> float:
        """Share of the padded places that rows need; 1 is no padding."""
        return self.needed / self.padded if self.padded else 1.0


@dataclass(frozen=True, slots=True)
class Sharing:
    """Which rows may share a batch: `any`, those of `equal` prompt lengths, or none (`alone`).

    `threshold`: beyond so many tokens, what a model computes for a row depends on the longest row of the batch. Rows
    that end within it share batches; so do those that begin `beyond` it; the others share them with rows of equal
    length.
    """

    kind: Literal["any", "equal", "alone"] = "any"
    threshold: int | None = None
    beyond: bool = True

    def describe(self) -> str:
        """In words for the report."""
        if self.kind != "any":
            return "rows of equal length" if self.kind == "equal" else "one row"
        return "rows of any length" if self.threshold is None else f"rows on one side of {self.threshold} tokens"

    def allows(self, first: Request, other: Request, width: int) -> bool:
        """Whether a row may join a batch, which has as its first row `first` and would then be `width` tokens long."""
        side = self._side(first)
        if self.kind == "alone" or side != self._side(other):
            return False
        return side != "within" or self.threshold is None or width <= self.threshold

    def _side(self, request: Request) -> str | int:
        """Rows of another side may not share a batch."""
        answer, prompt = _lengths(request)
        if self.kind == "equal":
            return prompt
        if self.threshold is None or prompt + answer <= self.threshold:
            return "within"
        return "beyond" if self.beyond and prompt > self.threshold else prompt


def next_batch(
    pool: Sequence[Request], max_rows: int, max_tokens: int, sharing: Sharing = Sharing()
) -> tuple[list[Request], list[Request]]:
    """The batch to compute now, and the rest of the pool in its order.

    Rows are taken by answer limit, then prompt length, longest first and stably; only such as have the same `flags`
    as the first and may share a batch with it. A batch has at most `max_rows` rows and `max_tokens` padded places, but
    never less than one row: a request that is longer alone runs alone.
    """
    order = sorted(range(len(pool)), key=lambda place: _lengths(pool[place]), reverse=True)
    taken: list[int] = []
    longest_prompt = longest_answer = 0
    for place in order:
        if len(taken) == max_rows:
            break
        answer, prompt = _lengths(pool[place])
        if taken:
            if pool[place].settings.flags != pool[taken[0]].settings.flags:
                continue
            width = max(longest_prompt, prompt) + max(longest_answer, answer)
            if (len(taken) + 1) * width > max_tokens or not sharing.allows(pool[taken[0]], pool[place], width):
                continue
        taken.append(place)
        longest_prompt, longest_answer = max(longest_prompt, prompt), max(longest_answer, answer)
    chosen = set(taken)
    return [pool[place] for place in taken], [request for place, request in enumerate(pool) if place not in chosen]


def padded_places(batch: Sequence[Request]) -> int:
    """Token places of a padded batch: its rows times longest prompt and longest answer."""
    lengths = [_lengths(request) for request in batch]
    return len(batch) * (max(prompt for _, prompt in lengths) + max(answer for answer, _ in lengths))


def plan_batches(
    pool: Sequence[Request], max_rows: int, max_tokens: int, sharing: Sharing = Sharing()
) -> list[PlannedBatch]:
    """All batches of a pool, in the order in which they would run."""
    batches = []
    rest = list(pool)
    while rest:
        batch, rest = next_batch(rest, max_rows, max_tokens, sharing)
        needed = sum(sum(_lengths(request)) for request in batch)
        batches.append(PlannedBatch(tuple(batch), needed, padded_places(batch)))
    return batches


def _lengths(request: Request) -> tuple[int, int]:
    """Answer limit and prompt length, in tokens."""
    return request.settings.max_new_tokens, len(request.prompt_ids)
