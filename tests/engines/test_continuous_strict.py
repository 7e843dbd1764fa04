"""Strict mode: tokens and log-probabilities are bit for bit the same, whatever else is in flight."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from batchchat.chats import Completion, Request
from batchchat.engines.continuous.admission.self_check import self_check
from batchchat.prompts import TokenizerCodec
from batchchat.schedule import Feed
from tests.support.architectures import ARCHITECTURES
from tests.support.engines import continuous
from tests.support.zoo import Clock, byte_bpe, llama, request

CODEC = TokenizerCodec(byte_bpe())


def requests() -> list[Request]:
    """Prompts of 1 to 200 tokens, some with a common beginning, half of them sampled, each with log-probabilities."""
    rng = random.Random(11)
    shared = tuple(rng.randrange(5, 470) for _ in range(100))
    out = []
    for index in range(16):
        own = tuple(rng.randrange(5, 470) for _ in range(1 + index * 31 % 200))
        out.append(
            request(
                index,
                shared + own if index % 5 == 0 else own,
                max_new_tokens=2 + index * 7 % 30,
                temperature=float(index % 2),
                logprobs=3,
            )
        )
    return out


def answer(model: Any, ordered: Iterable[Request], **settings: Any) -> dict[tuple[int, int, int], Any]:
    """Tokens and log-probabilities of each request, with the second turns that follow some of them."""
    engine = continuous(model, Clock(), **{"max_tokens": 16384, "batch_invariant": True, **settings})
    feed = Feed(iter(ordered), look_ahead=3)
    found = {}
    for done in engine.run(feed):
        assert done.finish_reason == "length"
        found[done.request.key] = (done.token_ids, done.logprobs)
        if done.request.turn == 0 and done.request.index % 3 == 0:
            feed.put(second_turn(done))
    return found


def second_turn(done: Completion) -> Request:
    return replace(done.request, turn=1, prompt_ids=(*done.request.prompt_ids, *done.token_ids, 7, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_same_bits_alone_and_in_a_crowd(dtype: torch.dtype) -> None:
    model = copy.deepcopy(llama(layers=2)).to(dtype)
    crowd = answer(model, requests())
    for rows in (1, 7):
        shuffled = requests()
        random.Random(rows).shuffle(shuffled)
        assert answer(model, shuffled, max_rows=rows) == crowd
    for one in requests()[:6]:
        alone = answer(model, [one])
        assert all(crowd[key] == found for key, found in alone.items())


def test_the_same_bits_when_memory_runs_out() -> None:
    model = llama(layers=2)
    assert answer(model, requests(), max_tokens=768) == answer(model, requests())


def test_resumed_second_turns_have_the_same_bits() -> None:
    """After a restart the first turn's keys are gone, and the second turn's prompt is computed as a whole."""
    model = llama(layers=2)
    crowd = answer(model, requests())
    for index in (0, 3, 9):
        first = next(one for one in requests() if one.index == index)
        tokens, _ = crowd[first.key]
        again = replace(first, turn=1, prompt_ids=(*first.prompt_ids, *tokens, 7, 8))
        assert answer(model, [again])[again.key] == crowd[again.key]


@pytest.mark.parametrize("name", ["gemma2, window 50", "qwen3"])
def test_the_same_bits_in_other_architectures(name: str) -> None:
    model = next(architecture for architecture in ARCHITECTURES if architecture.name == name).model()
    crowd = answer(model, requests())
    assert answer(model, reversed(requests()), max_rows=5) == crowd


def test_experts_are_refused_since_their_shapes_depend_on_the_crowd() -> None:
    model = next(architecture for architecture in ARCHITECTURES if architecture.name == "mixtral").model()
    assert self_check(model).reason is None
    assert "experts" in str(self_check(model, batch_invariant=True).reason)


def test_fast_mode_is_not_promised_the_same_bits() -> None:
    """Without strict mode the log-probabilities do differ, so the tests above can fail."""
    model = llama(layers=2)
    fast = {"batch_invariant": False}
    assert answer(model, requests(), **fast) != answer(model, requests(), max_rows=1, **fast)
