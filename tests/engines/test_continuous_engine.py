"""In-flight batching through its public surface: rows, settings, memory, bad input, failures."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch

from batchchat.chats import Completion, Request
from batchchat.engines.continuous.batch import Pass
from batchchat.engines.continuous.engine import ContinuousEngine
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.schedule import Feed
from tests.support.architectures import ARCHITECTURES
from tests.support.engines import continuous
from tests.support.requests import CODEC, mixed, prompt
from tests.support.zoo import Clock, llama, request


def engine(clock: Clock | None = None, **settings: Any) -> ContinuousEngine:
    return continuous(llama(layers=2), clock or Clock(), **{"max_rows": 8, **settings})


def answer(requests: Iterable[Request], **settings: Any) -> dict[int, Completion]:
    """What becomes of each request, by its index."""
    done = list(engine(**settings).run(Feed(iter(requests), look_ahead=1000)))
    found = {one.request.index: one for one in done}
    assert len(found) == len(done), "a request was answered twice"
    return found


@pytest.mark.parametrize("rows", [1, 5, 36])
def test_an_answer_is_that_of_the_request_alone(rows: int) -> None:
    together = answer(mixed(), max_rows=rows)
    for one in mixed()[: 9 if rows == 5 else 3]:
        alone = answer([one])[one.index]
        assert together[one.index].token_ids == alone.token_ids
        assert together[one.index].finish_reason == alone.finish_reason
    assert {done.finish_reason for done in together.values()} == {"length", "stop", "stop_string"}


def test_log_probabilities_are_those_of_the_plain_forward() -> None:
    one = request(99, prompt(1, 20), max_new_tokens=5, logprobs=2)
    done = answer([one, *mixed()])[99]
    assert done.logprobs is not None
    assert len(done.logprobs) == 5
    ids = torch.tensor([[*one.prompt_ids, *done.token_ids]])
    with torch.inference_mode():
        logs = torch.log_softmax(llama(layers=2)(ids).logits[0, 19:-1], dim=-1)
    for place, found in enumerate(done.logprobs):
        assert found.logprob == pytest.approx(float(logs[place, done.token_ids[place]]), abs=1e-4)
        assert found.top[0] == (found.token_id, found.logprob)


def test_a_stop_string_over_token_boundaries_ends_the_answer_and_one_in_the_prompt_does_not() -> None:
    frees = answer([request(n, prompt(n, 30), max_new_tokens=40) for n in range(6)])
    words = re.compile(r"[!-~][ -~]{6}[!-~]")
    found = {n: match.group() for n, free in frees.items() if (match := words.search(free.text, 5))}
    number, stop = next((n, text) for n, text in found.items() if len(CODEC.encode_text(text)) >= 3)
    free = frees[number]
    held = answer([request(number, prompt(number, 30), max_new_tokens=40, stop=("never", stop))])[number]
    assert held.finish_reason == "stop_string"
    assert stop in held.text
    assert held.token_ids == free.token_ids[: len(held.token_ids)]
    assert stop not in CODEC.decode(held.token_ids[:-1])
    in_prompt = request(0, CODEC.encode_text("xyzzy"), max_new_tokens=4, stop=("xyzzy",))
    assert answer([in_prompt])[0].finish_reason == "length"


def test_what_needs_no_model() -> None:
    found = answer([request(0, (), max_new_tokens=3), request(1, max_new_tokens=0)])
    assert found[0].finish_reason == "error"
    assert "no tokens" in str(found[0].error)
    assert (found[1].finish_reason, found[1].token_ids, found[1].text) == ("length", (), "")


def test_a_prompt_longer_than_the_memory_is_an_error_and_the_others_are_answered() -> None:
    found = answer([request(0, prompt(0, 600)), *(request(n, prompt(n, 50)) for n in range(1, 5))], max_tokens=512)
    assert found[0].finish_reason == "error"
    assert "512 tokens" in str(found[0].error)
    assert "engine.max_batch_tokens" in str(found[0].error)
    assert {found[n].finish_reason for n in range(1, 5)} == {"length"}


def test_an_answer_that_outgrows_the_memory_is_an_error() -> None:
    found = answer([request(0, prompt(0, 100), max_new_tokens=100)], max_tokens=128)
    assert found[0].finish_reason == "error"
    assert found[0].token_ids


def test_when_memory_runs_out_the_youngest_is_computed_again() -> None:
    clock = Clock()
    requests = [request(n, prompt(n, 40), max_new_tokens=60, temperature=1.0) for n in range(6)]
    tight = engine(clock, max_tokens=384, max_rows=6)
    found = {one.request.index: one for one in tight.run(Feed(iter(requests), look_ahead=100))}
    facts = tight.describe()
    assert facts.preempted > 0
    assert facts.kv_peak_tokens <= 384
    assert ("preempted" in dict(clock.events)) is True
    roomy = answer(requests, max_rows=6)
    assert {n: one.token_ids for n, one in found.items()} == {n: one.token_ids for n, one in roomy.items()}


@pytest.mark.parametrize("budget", [320, 700, 2048])
def test_nothing_is_lost_whatever_the_memory(budget: int) -> None:
    requests = mixed()
    found = answer(requests, max_tokens=budget, max_rows=20)
    assert sorted(found) == sorted(one.index for one in requests)
    assert all(one.finish_reason != "error" for one in found.values())


def test_counts_are_of_true_tokens() -> None:
    clock = Clock()
    requests = [request(n, prompt(n, 30 + n), max_new_tokens=5) for n in range(10)]
    list(engine(clock).run(Feed(iter(requests), look_ahead=100)))
    _, prompts, generated, places = (sum(column) for column in zip(*clock.batches, strict=True))
    assert prompts == sum(len(one.prompt_ids) for one in requests)
    assert generated == 50
    assert places >= prompts + generated - len(requests)


def test_the_next_turn_goes_on_from_what_its_chat_computed() -> None:
    clock = Clock()
    tried = engine(clock)
    feed = Feed(iter([request(0, prompt(0, 200), max_new_tokens=20)]), look_ahead=10)
    second: Completion | None = None
    for done in tried.run(feed):
        if done.request.turn == 0:
            before = len(clock.batches)
            following = (*done.request.prompt_ids, *done.token_ids, *prompt(1, 30))
            feed.put(replace(done.request, turn=1, prompt_ids=following))
        else:
            second = done
    assert second is not None
    computed = sum(batch[1] for batch in clock.batches[before:])
    assert 30 <= computed <= 31, "only what is new is computed, and the last answer's end"
    assert second.token_ids == answer([replace(second.request, turn=0)])[0].token_ids


def test_a_shared_beginning_is_computed_once() -> None:
    shared = prompt(0, 300)
    requests = [request(n, shared + prompt(n, 10), max_new_tokens=4) for n in range(12)]
    clock = Clock()
    found = {done.request.index: done for done in engine(clock, max_rows=12).run(Feed(iter(requests), look_ahead=99))}
    assert sum(batch[1] for batch in clock.batches) <= 300 + 12 * 10
    for one in requests[:3]:
        assert found[one.index].token_ids == answer([one])[one.index].token_ids


def test_samples_of_one_prompt_compute_it_once() -> None:
    requests = [replace(request(0, prompt(0, 150), temperature=1.0, seed=n), sample=n, index=n) for n in range(8)]
    clock = Clock()
    found = list(engine(clock).run(Feed(iter(requests), look_ahead=99)))
    assert sum(batch[1] for batch in clock.batches) == 150 + 7
    assert len({done.token_ids for done in found}) == 8


def test_a_long_prompt_does_not_stall_the_others() -> None:
    clock = Clock()
    requests = [request(0, prompt(0, 1500), max_new_tokens=1), request(1, prompt(1, 5), max_new_tokens=4)]
    found = {done.request.index: done for done in engine(clock).run(Feed(iter(requests), look_ahead=9))}
    assert max(batch[3] for batch in clock.batches) <= 272
    assert found[1].timings.finished < found[0].timings.finished


def break_passes(
    monkeypatch: pytest.MonkeyPatch, marker: int, act: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> None:
    """Let `act(logits, rows)` spoil the passes that hold a prompt with the token `marker`, `rows` being its rows."""
    plain = ModelRunner.forward

    def forward(runner: ModelRunner, work: Pass, every: bool = False) -> torch.Tensor:
        logits = plain(runner, work, every)
        ends = itertools.accumulate(span.count for span in work.spans)
        marked = {
            end - 1 for end, span in zip(ends, work.spans, strict=True) if marker in span.sequence.request.prompt_ids
        }
        if not marked:
            return logits
        return act(logits, torch.tensor([place in marked for place in work.wanted.tolist()]))

    monkeypatch.setattr(ModelRunner, "forward", forward)


def test_logits_that_are_not_numbers_cost_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def poison(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return logits.masked_fill(rows[:, None], float("nan"))

    whole = answer([request(n, prompt(n, 20)) for n in range(6)])
    break_passes(monkeypatch, 478, poison)
    spoiled = request(9, (478, *prompt(9, 20)))
    found = answer([*(request(n, prompt(n, 20)) for n in range(6)), spoiled], max_rows=4)
    assert found[9].finish_reason == "error"
    assert "token 1" in str(found[9].error)
    assert all(found[n].token_ids == whole[n].token_ids for n in range(6))


def test_keys_that_are_not_numbers_do_not_stay_in_a_slot() -> None:
    model = ARCHITECTURES[0].model()
    with torch.no_grad():
        model.get_input_embeddings().weight[478] = float("nan")
    tried = continuous(model, Clock(), max_rows=1)
    sound = [request(n, prompt(n, 5 + n), max_new_tokens=4) for n in range(1, 6)]
    spoiled = request(0, (478, *prompt(0, 60)))
    found = {done.request.index: done for done in tried.run(Feed(iter([spoiled, *sound]), look_ahead=9))}
    assert found[0].finish_reason == "error"
    assert all(found[n].finish_reason == "length" for n in range(1, 6))


def test_an_exception_costs_only_the_request_that_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the kernel\nfell over")

    clock = Clock()
    plain = [request(n, prompt(n, 20), temperature=1.0) for n in range(7)]
    whole = answer(plain)
    break_passes(monkeypatch, 478, explode)
    tried = engine(clock, max_rows=8)
    found = {done.request.index: done for done in tried.run(Feed(iter([*plain, request(9, (5, 478))]), look_ahead=99))}
    assert found[9].finish_reason == "error"
    assert "RuntimeError: the kernel fell over" in str(found[9].error)
    assert all(found[n].token_ids == whole[n].token_ids for n in range(7))
    assert {name for name, _ in clock.events} == {"retry"}


def test_an_interrupt_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    break_passes(monkeypatch, 478, interrupt)
    with pytest.raises(KeyboardInterrupt):
        answer([request(0, (478,))])


def test_a_feed_that_is_empty_for_a_while() -> None:
    feed = Feed(iter([request(0)]), look_ahead=4, open_ended=True)

    def later() -> None:
        time.sleep(0.3)
        feed.put(request(1))
        feed.close()

    thread = threading.Thread(target=later)
    thread.start()
    found = [done.request.index for done in engine().run(feed)]
    thread.join()
    assert found == [0, 1]


@pytest.mark.parametrize("budget", [256, 8192])
def test_answers_that_are_given_away_during_the_next_step_are_the_same(budget: int) -> None:
    """As on an accelerator; with second turns, which come a step later then, and where memory is short."""

    def chats(overlap: bool) -> list[Completion]:
        feed = Feed(iter(mixed()), look_ahead=1000)
        found = []
        for done in engine(max_tokens=budget, overlap=overlap).run(feed):
            found.append(done)
            if done.request.turn == 0 and done.error is None:
                following = (*done.request.prompt_ids, *done.token_ids, 9, 8)
                feed.put(replace(done.request, turn=1, prompt_ids=following))
        return found

    later, at_once = chats(True), chats(False)
    assert len(later) == len(at_once)
    assert {d.request.key: d.token_ids for d in later} == {d.request.key: d.token_ids for d in at_once}


def test_the_listener_hears_every_token_once_and_in_order() -> None:
    heard: dict[int, list[int]] = {}

    def listen(one: Request, token: int) -> None:
        heard.setdefault(one.index, []).append(token)

    found = answer([request(n, prompt(n, 40), max_new_tokens=100) for n in range(8)], max_tokens=640, on_token=listen)
    assert {n: tuple(tokens) for n, tokens in heard.items()} == {n: one.token_ids for n, one in found.items()}
