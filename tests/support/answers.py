"""Requests of many lengths that begin alike, and whether answers to them are those of `generate`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import torch

from batchchat.chats import Completion, Request
from batchchat.engines.continuous.engine import ContinuousEngine
from batchchat.schedule import Feed
from tests.support.architectures import VOCABULARY
from tests.support.zoo import request

TIE = 1e-3
"""Logits closer than this are equal within rounding: either token counts."""


def requests() -> list[Request]:
    """Prompts of 1 to 700 tokens; some begin alike, two are the same, most answers are short."""
    rng = random.Random(7)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, VOCABULARY) for _ in range(length))

    shared = ids(120)
    prompts = [ids(length) for length in (1, 2, 15, 64, 65, 300, 700)]
    prompts += [shared + ids(3), shared + ids(40), shared, shared]
    limits = [20, 40, 9, 3, 30, 12, 20, 8, 8, 6, 6]
    return [
        request(index, prompt, max_new_tokens=limit)
        for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]


def drain_with_second_turns(engine: ContinuousEngine, feed: Feed) -> Iterator[Completion]:
    """As the run's loop does: each answer of a first turn brings a second, which begins with all of the first."""
    for done in engine.run(feed):
        yield done
        if done.request.turn == 0 and done.request.index % 2:
            following = (*done.request.prompt_ids, *done.token_ids, 9, 8, 7)
            feed.put(replace(done.request, turn=1, prompt_ids=following))


def first_difference(model: torch.nn.Module, done: Completion) -> float | None:
    """None where the tokens are `generate`'s; else how far apart the two tokens' logits are where they part."""
    prompt = torch.tensor([done.request.prompt_ids])
    with torch.inference_mode():
        out = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=len(done.token_ids),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        theirs = out[0, prompt.shape[1] :].tolist()
        for place, (one, other) in enumerate(zip(done.token_ids, theirs, strict=True)):
            if one != other:
                context = torch.cat((prompt[0], torch.tensor(theirs[:place], dtype=torch.long)))[None]
                logits = model(context).logits[0, -1]
                return float((logits[one] - logits[other]).abs())
    return None
