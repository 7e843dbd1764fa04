"""Strict mode: tokens and log-probabilities are bit for bit the same, whatever else is in flight."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from batchchat.chats import Completion, Request
from batchchat.engines import EngineContext, build_engine
from batchchat.engines import continuous as continuous_engine
from batchchat.engines.continuous.admission.batch_invariance import passes_can_be_shared
from batchchat.engines.continuous.admission.cancelling import cancelling, same_at_any_place, same_at_any_size
from batchchat.engines.cpu import preparation
from batchchat.errors import UsageError
from batchchat.prompts import TokenizerCodec
from batchchat.recipe import Recipe
from batchchat.schedule import Feed
from tests.support.architectures import ARCHITECTURES
from tests.support.engines import continuous
from tests.support.recording import Replays
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


def test_experts_of_torch_are_refused_since_their_shapes_depend_on_the_crowd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(architecture for architecture in ARCHITECTURES if architecture.name == "mixtral").model().save_pretrained(
        tmp_path
    )
    recipe = Recipe.model_validate(
        {
            "model": {"name": str(tmp_path), "dtype": "float32"},
            "source": {"path": "-"},
            "engine": {"reproducible": "strict"},
        }
    )
    facts = build_engine("auto", EngineContext(recipe, CODEC, Clock())).describe()
    assert (facts.engine, facts.reproducible, facts.passes) == ("continuous", "strict", "of any size")
    monkeypatch.setattr(preparation, "compiled", lambda: False)
    with pytest.raises(UsageError, match="how many rows its experts compute depends on the other rows"):
        build_engine("auto", EngineContext(recipe, CODEC, Clock()))


def test_fast_mode_is_not_promised_the_same_bits() -> None:
    """Without strict mode the log-probabilities do differ, so the tests above can fail."""
    model = llama(layers=2)
    fast = {"batch_invariant": False}
    assert answer(model, requests(), **fast) != answer(model, requests(), max_rows=1, **fast)


def test_shared_passes_of_fixed_size_over_pages_give_the_same_bits() -> None:
    """As on an accelerator whose products depend on the number of rows: alone, among 32, and when memory runs out."""
    model = llama(layers=2)
    shared: dict[str, Any] = {"shared_passes": True, "cache": "paged", "max_rows": 32}
    doubled = [*requests(), *(replace(one, sample=1, seed=one.seed + 1) for one in requests())]
    crowd = answer(model, doubled, **shared)
    assert len(crowd) >= 32
    assert answer(model, doubled[::-1], overlap=True, max_tokens=1024, record=Replays(), **shared) == crowd
    for one in doubled[::9]:
        alone = answer(model, [one], **shared)
        assert all(crowd[key] == found for key, found in alone.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_trial_tells_whether_passes_may_be_shared(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = copy.deepcopy(llama(layers=1)).to(dtype)
    assert passes_can_be_shared(model, 32, 256)
    linear = functional.linear

    def uneven(rows: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Its last rows are summed up in another order, as where the work is cut into pieces that end within a sum."""
        half, last = weight.shape[1] // 2, 3 * rows.shape[1] // 4
        halves = linear(rows[..., :half], weight[:, :half]) + linear(rows[..., half:], weight[:, half:])
        return torch.cat((linear(rows, weight)[:, :last], halves[:, last:]), dim=1)

    weight, rows = cancelling(96, 64, 32, dtype, torch.device("cpu"))
    assert same_at_any_place(partial(linear, weight=weight), rows, 32)
    assert not same_at_any_place(partial(uneven, weight=weight), rows, 32)
    assert not same_at_any_size(partial(uneven, weight=weight), rows, (8, 32))
    monkeypatch.setattr(functional, "linear", uneven)
    assert not passes_can_be_shared(model, 32, 256)


def test_a_model_for_which_nothing_is_proven_is_refused_in_strict_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama(layers=1).save_pretrained(tmp_path)
    recipe = Recipe.model_validate(
        {
            "model": {"name": str(tmp_path), "dtype": "float32"},
            "source": {"path": "-"},
            "engine": {"reproducible": "strict"},
        }
    )
    monkeypatch.setattr(continuous_engine, "_strict", lambda model, config: None)
    with pytest.raises(UsageError, match=r"other bits at another place of a pass.*; set engine.reproducible=fast"):
        build_engine("auto", EngineContext(recipe, CODEC, Clock()))
