"""Requests with all kinds of settings, for engines."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

from batchchat.chats import Message, Request, Settings
from batchchat.prompts import TokenizerCodec
from tests.support.zoo import byte_bpe, request

CODEC = TokenizerCodec(byte_bpe())


def prompt(index: int, length: int) -> tuple[int, ...]:
    rng = random.Random(index)
    return tuple(rng.randrange(5, 470) for _ in range(length))


def mixed() -> list[Request]:
    """Requests of all kinds of settings."""
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 1.0},
        {"temperature": 0.7, "top_k": 20, "top_p": 0.9},
        {"temperature": 1.5, "min_p": 0.05, "logprobs": 3},
        {"repetition_penalty": 1.3, "frequency_penalty": 0.2},
        {"logit_bias": ((7, 4.0),), "bad_words": ((8,), (9, 10))},
        {"min_new_tokens": 6, "stop_token_ids": tuple(range(100, 300))},
        {"stop": ("e", "th"), "temperature": 1.0},
        {"logprobs": 0},
    ]
    return [
        request(n, prompt(n, 1 + n * 7 % 90), max_new_tokens=3 + n * 5 % 40, **kinds[n % len(kinds)]) for n in range(36)
    ]


def scripted_requests(texts: Iterable[str]) -> list[Request]:
    """Requests of one user turn each, for an engine without a model."""
    return [
        Request(
            chat_id=f"chat-{n}",
            index=n,
            sample=0,
            turn=0,
            prompt_ids=tuple(text.encode()),
            settings=Settings(max_new_tokens=64),
            seed=n,
            messages=(Message("user", text),),
        )
        for n, text in enumerate(texts)
    ]
