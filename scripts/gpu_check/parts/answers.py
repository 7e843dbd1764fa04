"""Draining requests, and holding answers against each other and against the plain forward."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from batchchat.chats import Completion, Request
from batchchat.schedule import Feed

Answers = Mapping[int, Completion]
"""Completions by the index of their request."""


def answered(engine: Any, requests: Iterable[Request]) -> Answers:
    """Raises RuntimeError with the words of the first request that is an error."""
    asked = list(requests)
    found = {done.request.index: done for done in engine.run(Feed(iter(asked), look_ahead=len(asked)))}
    errors = [done.error for done in found.values() if done.error is not None]
    if errors or len(found) != len(asked):
        raise RuntimeError(f"{len(errors)} of {len(asked)} requests failed: {errors[:1]}")
    return found


def differing(one: Answers, other: Answers) -> int:
    """Answers of `other` whose tokens or log-probabilities are not exactly those of `one`."""
    return sum(
        (done.token_ids, done.logprobs) != (one[index].token_ids, one[index].logprobs) for index, done in other.items()
    )


def worst_gap(model: Any, completions: Sequence[Completion]) -> float:
    """The largest of the gaps, 0 where there are none."""
    return max(gaps(model, completions), default=0.0)


@torch.inference_mode()
def gaps(model: Any, completions: Sequence[Completion]) -> list[float]:
    """How far below the largest logit of the plain forward each greedy token's logit lies, in standard deviations of
    the logits: 0 where it is the token that the plain forward would choose."""
    found: list[float] = []
    for done in completions:
        prompt = len(done.request.prompt_ids)
        ids = torch.tensor([[*done.request.prompt_ids, *done.token_ids]], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, prompt - 1 : -1].float()
        own = logits.gather(1, ids[0, prompt:, None])[:, 0]
        found += ((logits.max(-1).values - own) / logits.std(-1)).tolist()
    return found
