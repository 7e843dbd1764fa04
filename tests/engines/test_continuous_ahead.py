"""Steps that are launched before the tokens of the last ones are read: the answers are those of the plain order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchchat.chats import Completion, Request
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.sampling import Choice, Told
from batchchat.schedule import Feed
from tests.support.engines import continuous
from tests.support.requests import mixed, prompt
from tests.support.zoo import Clock, llama, request


@dataclass
class Late:
    """Reads a choice when it is asked to, as late as a device would give it, and keeps the order of what happens."""

    order: list[tuple[str, int]] = field(default_factory=list)
    num_launched: int = 0

    def __call__(self, choice: Choice) -> Callable[[], Told]:
        number = self.num_launched
        self.num_launched += 1
        self.order.append(("launched", number))

        def read() -> Told:
            self.order.append(("read", number))
            return choice.read()

        return read

    @property
    def lags(self) -> list[int]:
        """How many later steps were launched before each was read."""
        launched, lags = 0, []
        for what, number in self.order:
            launched = number if what == "launched" else launched
            if what == "read":
                lags.append(launched - number)
        return lags


def drained(
    requests: list[Request], turns: int = 1, late: Late | None = None, clock: Clock | None = None, **settings: Any
) -> tuple[dict[Any, Completion], Any]:
    """Completions by the requests' keys, with further turns, and the engine's facts."""
    tried = continuous(
        llama(layers=1), clock or Clock(), read_by=late, **{"max_rows": 5, "overlap": late is not None, **settings}
    )
    feed, found = Feed(iter(requests), look_ahead=100), {}
    for done in tried.run(feed):
        assert done.request.key not in found
        found[done.request.key] = done
        if done.request.turn < turns - 1 and done.error is None:
            following = (*done.request.prompt_ids, *done.token_ids, 9, 8)
            feed.put(replace(done.request, turn=done.request.turn + 1, prompt_ids=following))
    return found, tried.describe()


def said(found: dict[Any, Completion]) -> dict[Any, Any]:
    return {
        key: (done.token_ids, done.text, done.finish_reason, done.error, done.logprobs) for key, done in found.items()
    }


KINDS = st.sampled_from(
    [
        {},
        {"stop_token_ids": tuple(range(60, 300))},
        {"stop_token_ids": tuple(range(0, 480, 3)), "min_new_tokens": 4, "temperature": 1.0},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9, "logprobs": 2},
        {"temperature": 1.3, "min_p": 0.02, "repetition_penalty": 1.4},
        {"stop": ("e", "th"), "temperature": 1.0},
        {"bad_words": ((8,), (9, 10)), "bad_texts": ("a",), "frequency_penalty": 0.5},
    ]
)
CHATS = st.lists(st.tuples(KINDS, st.integers(1, 70), st.integers(1, 16), st.booleans()), min_size=1, max_size=7)


def requests_of(chats: list[tuple[dict[str, Any], int, int, bool]]) -> Iterator[Request]:
    """Prompts that begin alike or not, some of them as two samples."""
    for index, (kind, length, most, twice) in enumerate(chats):
        one = request(index, prompt(index % 3, length), max_new_tokens=most, **kind)
        yield one
        if twice:
            yield replace(one, sample=1, seed=one.seed + 1)


@settings(max_examples=12, deadline=None)
@given(
    chats=CHATS,
    turns=st.integers(1, 2),
    budget=st.sampled_from([272, 320, 8192]),
    cache=st.sampled_from(["paged", "paged", "slots"]),
)
def test_answers_are_those_of_the_plain_order(
    chats: list[tuple[dict[str, Any], int, int, bool]], turns: int, budget: int, cache: str
) -> None:
    """Bit for bit, log-probabilities included, which strict mode makes comparable."""
    made = list(requests_of(chats))
    how: dict[str, Any] = {"turns": turns, "max_tokens": budget, "cache": cache, "batch_invariant": True}
    plain, _ = drained(made, **how)
    late = Late()
    ahead, _ = drained(made, late=late, **how)
    assert said(ahead) == said(plain)
    assert set(late.lags) <= {0, 1}


@pytest.mark.parametrize("budget", [240, 8192])
def test_the_device_is_never_waited_for_but_where_memory_is_short(budget: int) -> None:
    requests = [request(n, prompt(n, 20 + n), max_new_tokens=20 + n % 3, temperature=1.0) for n in range(12)]
    late, clock = Late(), Clock()
    found, facts = drained(requests, late=late, clock=clock, cache="paged", max_tokens=budget)
    assert said(found) == said(drained(requests, cache="paged", max_tokens=budget)[0])
    assert (facts.preempted > 0) is (budget == 240)
    waits = late.lags.count(0)
    assert waits <= (1 if budget == 8192 else len(late.lags) // 2), "the last step has none behind it"
    assert sum(batch[2] for batch in clock.batches) >= sum(len(done.token_ids) for done in found.values())


def test_what_was_computed_beyond_an_end_is_not_counted_and_not_found() -> None:
    requests = [request(n, prompt(n, 40), max_new_tokens=30, stop_token_ids=tuple(range(240))) for n in range(6)]
    plain, at_once = drained(requests, turns=2, cache="paged")
    clock = Clock()
    ahead, facts = drained(requests, turns=2, late=Late(), clock=clock, cache="paged")
    assert said(ahead) == said(plain)
    assert any(done.finish_reason == "stop" for done in plain.values())
    assert sum(batch[2] for batch in clock.batches) == sum(len(done.token_ids) for done in ahead.values())
    assert facts.prompt_tokens_reused == at_once.prompt_tokens_reused


def test_the_listener_hears_every_token_once_and_in_order() -> None:
    heard: dict[Any, list[int]] = {}
    found, _ = drained(
        mixed()[:18],
        late=Late(),
        max_tokens=400,
        cache="paged",
        on_token=lambda one, token: heard.setdefault(one.key, []).append(token),
    )
    assert {key: tuple(tokens) for key, tokens in heard.items()} == {key: d.token_ids for key, d in found.items()}


def test_a_run_that_is_left_early_can_be_run_again() -> None:
    requests = [request(n, prompt(n, 30), max_new_tokens=30 - 2 * n) for n in range(6)]
    tried = continuous(llama(layers=1), Clock(), read_by=Late(), overlap=True, max_rows=6, cache="paged")
    for _ in tried.run(Feed(iter(requests), look_ahead=9)):
        break
    found = {done.request.key: done for done in tried.run(Feed(iter(requests), look_ahead=9))}
    assert said(found) == said(drained(requests, max_rows=6, cache="paged")[0])


@pytest.mark.parametrize("memory", [True, False], ids=["memory", "exception"])
def test_a_step_that_fails_behind_one_that_was_not_read_costs_no_answer(
    memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [request(n, prompt(n, 20 + n), max_new_tokens=12, temperature=1.0) for n in range(10)]
    plain, _ = drained(requests, cache="paged")
    forward, passes = ModelRunner.forward, [0]

    def failing(self: Any, work: Any, every: bool = False) -> Any:
        passes[0] += 1
        if passes[0] in (9, 15):
            raise torch.OutOfMemoryError("out of memory") if memory else RuntimeError("no such kernel")
        return forward(self, work, every)

    monkeypatch.setattr(ModelRunner, "forward", failing)
    found, _ = drained(requests, late=Late(), cache="paged")
    assert {key: done.token_ids for key, done in found.items()} == {key: done.token_ids for key, done in plain.items()}


def test_logits_that_are_not_numbers_cost_one_row() -> None:
    model = llama(layers=1)
    sound = [request(n, prompt(n, 20 + n), max_new_tokens=9) for n in range(5)]
    plain, _ = drained(sound, cache="paged")
    spoiled = request(9, prompt(9, 20), max_new_tokens=9, logit_bias=((7, float("nan")),))
    tried = continuous(model, Clock(), read_by=Late(), overlap=True, max_rows=6, cache="paged")
    found = {done.request.key: done for done in tried.run(Feed(iter([*sound, spoiled]), look_ahead=9))}
    assert found.pop(spoiled.key).finish_reason == "error"
    assert said(found) == said(plain)
