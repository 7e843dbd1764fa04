"""Requests to measure with, always the same: no tokenizer, no files. The end token is ignored, so that every engine
writes the same number of tokens."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

from batchchat.chats import Request, Settings

_LOWEST_ID, _HIGHEST_ID = 300, 7900


def mixed(count: int) -> list[Request]:
    """Log-normal prompt (median 80, 10 to 500) and answer lengths (median 48, 4 to 256), as chats have them."""
    rng = random.Random(0)

    def length(median: int, spread: float, low: int, high: int) -> int:
        return max(low, min(high, int(rng.lognormvariate(math.log(median), spread))))

    out = []
    for index in range(count):
        prompt = _ids(rng, length(80, 0.8, 10, 500))
        out.append(_request(index, prompt, length(48, 0.9, 4, 256)))
    return out


def shared_prefix(count: int, prefix: int = 1000, own: int = 30, answer: int = 16) -> list[Request]:
    """Chats under one long system prompt."""
    rng = random.Random(1)
    system = _ids(rng, prefix)
    return [_request(index, system + _ids(rng, own), answer) for index in range(count)]


def separate_prefixes(count: int) -> list[Request]:
    """The same lengths as `shared_prefix`, with nothing to share: each prompt begins with a token of its own."""
    return [replace(one, prompt_ids=(_LOWEST_ID + one.index, *one.prompt_ids[1:])) for one in shared_prefix(count)]


def equal(count: int, prompt: int = 60, answer: int = 128, seed: int = 3) -> list[Request]:
    """Requests of equal lengths, so that as many are in flight all the time."""
    rng = random.Random(seed)
    return [_request(index, _ids(rng, prompt), answer) for index in range(count)]


def uniform(count: int, low: int = 100, high: int = 1024) -> list[Request]:
    """Prompt and answer lengths that are all equally likely."""
    rng = random.Random(0)
    return [_request(index, _ids(rng, rng.randint(low, high)), rng.randint(low, high)) for index in range(count)]


def first_turns(count: int, length: int = 300, answer: int = 32) -> list[Request]:
    """First turns of two-turn chats; `second_turn` makes the other ones."""
    rng = random.Random(2)
    return [_request(index, _ids(rng, length), answer) for index in range(count)]


def second_turn(first: Request, answer: tuple[int, ...], length: int = 300) -> Request:
    """The next turn of a chat: what was said before, and `length` new tokens."""
    new = _ids(random.Random(first.index), length)
    prompt = (*first.prompt_ids, *answer, *new)
    return Request(first.chat_id, first.index, 0, 1, prompt, first.settings, first.seed)


def fitted(requests: list[Request], vocabulary: int) -> list[Request]:
    """The requests with ids that a vocabulary of this size has; the same ones where it is large enough."""
    if vocabulary > _HIGHEST_ID:
        return requests
    return [replace(one, prompt_ids=tuple(token % vocabulary for token in one.prompt_ids)) for one in requests]


WORKLOADS: dict[str, Callable[[], list[Request]]] = {
    "mixed48": lambda: mixed(48),
    "mixed480": lambda: mixed(480),
    "mixed16": lambda: mixed(16),
    "four": lambda: equal(24),
    "uniform256": lambda: uniform(256),
    "two-turns": lambda: first_turns(16),
    "shared-prefix": lambda: shared_prefix(64),
    "separate-prefixes": lambda: separate_prefixes(64),
}


def _ids(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(_LOWEST_ID, _HIGHEST_ID) for _ in range(length))


def _request(index: int, prompt: tuple[int, ...], answer: int) -> Request:
    return Request(f"chat-{index}", index, 0, 0, prompt, Settings(max_new_tokens=answer), seed=index)
