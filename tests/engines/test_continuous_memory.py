"""The continuous engine runs out of memory: every request is answered with the same tokens, in smaller company."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from batchchat.chats import Completion, Request
from batchchat.engines.continuous.engine import ContinuousEngine
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.engines.continuous.pools import Pool
from batchchat.engines.memory import Budget
from batchchat.schedule import Feed
from tests.support.engines import continuous
from tests.support.jobs import Command, outputs, read_jsonl, report_of
from tests.support.requests import mixed
from tests.support.zoo import Clock, llama, request

Refuse = Callable[[Any], bool]
"""From a packed pass to whether there is no memory for it."""


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[Refuse], None]:
    """Lets passes run out of memory from now on, where the given function says so."""
    forward = ModelRunner.forward

    def limit(refuse: Refuse) -> None:
        def limited(self: Any, work: Any, every: bool = False) -> Any:
            if refuse(work) and not every:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return forward(self, work, every)

        monkeypatch.setattr(ModelRunner, "forward", limited)

    return limit


def answer(
    requests: list[Request], **settings: Any
) -> tuple[dict[int, Completion], ContinuousEngine, dict[str, list[str]]]:
    clock = Clock()
    engine = continuous(llama(), clock, **{"max_rows": 8, **settings})
    found = {one.request.index: one for one in engine.run(Feed(iter(requests), look_ahead=1000))}
    told: dict[str, list[str]] = {}
    for name, detail in clock.events:
        told.setdefault(name, []).append(detail)
    return found, engine, told


def tokens(found: dict[int, Completion]) -> dict[int, tuple[int, ...]]:
    return {index: one.token_ids for index, one in found.items()}


@pytest.mark.parametrize("mode", ["fast", "strict"])
def test_at_any_size_every_request_is_answered_alike(mode: str, memory: Callable[[Refuse], None]) -> None:
    plain = tokens(answer(mixed(), batch_invariant=mode == "strict")[0])
    for most in (120, 64) if mode == "strict" else (100, 40, 17):

        def refuse(work: Any, most: int = most) -> bool:
            return work.size > most or (len(work.spans) > 1 and sum(span.end for span in work.spans) > 4 * most)

        memory(refuse)
        found, _, told = answer(mixed(), batch_invariant=mode == "strict")
        assert tokens(found) == plain
        assert not [one.error for one in found.values() if one.error]
        assert "not fit" in told["out_of_memory"][0]


def test_what_fits_is_learned_and_kept(memory: Callable[[Refuse], None]) -> None:
    memory(lambda work: sum(span.slot.pool.length for span in work.spans) > 400)
    heard: list[int] = []
    found, engine, told = answer(mixed(), budget=Budget(on_change=heard.append))
    assert len(told["out_of_memory"]) <= 3
    assert engine.describe().learned_batch_tokens == heard[-1] <= 400
    again, _, later = answer(mixed(), budget=Budget(heard[-1]))
    assert "out_of_memory" not in later
    assert tokens(again) == tokens(found)


def test_at_random_moments(memory: Callable[[Refuse], None]) -> None:
    plain = tokens(answer(mixed()[:14])[0])
    for seed in range(2):
        draw = random.Random(seed)
        since = [0]

        def refuse(work: Any, draw: random.Random = draw, since: list[int] = since) -> bool:
            since[0] += 1
            if since[0] < 3 or draw.random() > 0.2:  # a request alone is tried twice
                return False
            since[0] = 0
            return True

        memory(refuse)
        found, _, told = answer(mixed()[:14])
        assert tokens(found) == plain
        assert told["out_of_memory"]


def test_where_memory_for_keys_and_values_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [request(n, tuple(range(5, 40 + n)), max_new_tokens=60) for n in range(10)]
    plain = tokens(answer(requests)[0])
    hold = Pool.hold
    pools: set[Pool] = set()

    def limited(self: Pool, capacity: int) -> None:
        pools.add(self)
        others = sum(pool.capacity * pool.length for pool in pools if pool is not self)
        if others + capacity * self.length > 500:
            raise torch.OutOfMemoryError("CUDA out of memory")
        hold(self, capacity)

    monkeypatch.setattr(Pool, "hold", limited)
    found, engine, told = answer(requests)
    assert tokens(found) == plain
    assert told["out_of_memory"]
    assert engine.describe().learned_batch_tokens <= 500


def test_a_request_that_does_not_fit_alone_is_an_error_and_the_others_are_answered(
    memory: Callable[[Refuse], None],
) -> None:
    requests = [request(n, tuple(range(5, 20 + 5 * n)), max_new_tokens=20) for n in range(12)]
    plain = tokens(answer(requests)[0])
    memory(lambda work: any(span.sequence.request.index == 7 for span in work.spans))
    found, _, _ = answer(requests)
    assert "do not fit into memory, even alone" in str(found[7].error)
    assert tokens(found) | {7: ()} == plain | {7: ()}


def test_a_run_goes_on_with_what_fits(
    memory_recipe: Path,
    batchchat: Command,
    memory: Callable[[Refuse], None],
) -> None:
    kind = "engine.kind=continuous"
    assert batchchat("run", memory_recipe, kind, "name=whole").code == 0
    memory(lambda work: len(work.spans) > 3)
    assert batchchat("run", memory_recipe, kind, "name=short").code == 0
    assert outputs(memory_recipe, "short") == outputs(memory_recipe, "whole")
    report = report_of(memory_recipe, "short")
    assert report["events"]["counts"]["out_of_memory"] > 0
    assert max(int(size) for size in report["session"]["batch_rows"]) <= 3
    assert report["engine"]["learned_batch_tokens"] > 0
    assert "batch tokens that fit" in (memory_recipe.parent / "runs/short/report.md").read_text(encoding="utf-8")
    assert read_jsonl(memory_recipe.parent / "runs/short/errors.jsonl") == []
    assert json.dumps(report)
