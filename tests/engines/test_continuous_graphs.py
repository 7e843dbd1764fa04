"""Recorded steps, with recordings that replay on the CPU: everything about them but a GPU's own."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchchat.chats import Completion, Request
from batchchat.engines.base import EngineConfig
from batchchat.engines.continuous.admission.probe import ProbePrompt
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.graphs import Recordings
from batchchat.engines.continuous.paged import batch
from batchchat.engines.continuous.paged.batch import Form, PagedPass
from batchchat.engines.continuous.paged.block_table import BlockTable
from batchchat.engines.continuous.paged.pages import Pages
from batchchat.engines.continuous.passes import recorded_forms
from batchchat.schedule import Feed
from tests.support.engines import continuous
from tests.support.pages import CPU
from tests.support.recording import Replays
from tests.support.requests import mixed, prompt
from tests.support.zoo import Clock, llama, request


def drained(
    requests: list[Request], turns: int = 1, clock: Clock | None = None, **settings: Any
) -> tuple[dict[Any, Any], Any]:
    """Tokens, reasons and log-probabilities by the requests' keys, and the engine's facts."""
    tried = continuous(llama(layers=2), clock or Clock(), **{"cache": "paged", "max_rows": 8, **settings})
    feed, found = Feed(iter(requests), look_ahead=100), {}
    for done in tried.run(feed):
        found[done.request.key] = said(done)
        if done.request.turn < turns - 1:
            following = (*done.request.prompt_ids, *done.token_ids, 9, 8)
            feed.put(replace(done.request, turn=done.request.turn + 1, prompt_ids=following))
    return found, tried.describe()


def said(done: Completion) -> tuple[Any, ...]:
    return done.token_ids, done.finish_reason, done.error


@pytest.mark.parametrize(
    "more",
    [{}, {"max_rows": 1}, {"max_tokens": 320}, {"overlap": True}, {"overlap": True, "max_tokens": 320}],
    ids=str,
)
def test_one_recording_for_each_number_of_rows_serves_all_lengths(more: dict[str, Any]) -> None:
    plain, _ = drained(mixed()[:10], turns=2, **more)
    record, clock = Replays(), Clock()
    recorded, facts = drained(mixed()[:10], turns=2, record=record, clock=clock, **more)
    assert recorded == plain
    forms = recorded_forms(EngineConfig(max_rows=more.get("max_rows", 8)))
    assert record.num_made == facts.steps_recorded == len(forms)
    assert facts.steps_replayed == record.num_replayed
    assert record.num_replayed - facts.work.decode.passes >= 5, "some with prompts among them"
    assert facts.work.decode.passes > 15
    assert facts.recording_seconds > 0
    assert [detail for name, detail in clock.events if name == "recorded"] == [
        f"steps of {len(forms)} sizes were recorded in {facts.recording_seconds:.1f} s"
    ]


@pytest.mark.parametrize("more", [{}, {"products_are_invariant": True}, {"shared_passes": True}], ids=str)
def test_strict_passes_of_one_size_do_not_overwrite_each_other(more: dict[str, Any]) -> None:
    """Several of them make a step, and all are replayed from one recording."""
    requests = [request(n, prompt(n, 5 + n), max_new_tokens=6, logprobs=2) for n in range(20)]
    how: dict[str, Any] = {"batch_invariant": True, "max_rows": 20, **more}
    plain, _ = drained(requests, **how)
    recorded, facts = drained(requests, record=Replays(), **how)
    assert recorded == plain
    assert facts.steps_replayed >= 5


@pytest.mark.parametrize("missing", ["input_ids", "position_ids", "slots", "tables", "lengths", "starts"])
def test_an_input_that_was_not_filled_anew_would_show(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: each input matters."""
    requests = [request(n, prompt(n, 10 + 3 * n), max_new_tokens=12) for n in range(6)]
    plain, _ = drained(requests, record=Replays())
    fill = PagedPass.fill

    def stale(self: PagedPass, other: PagedPass) -> None:
        kept = getattr(self, missing).clone()
        fill(self, other)
        getattr(self, missing).copy_(kept)

    monkeypatch.setattr(PagedPass, "fill", stale)
    spoiled, _ = drained(requests, record=Replays())
    assert spoiled != plain


def test_padding_and_blank_rows_write_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the pages when steps are recorded is there afterwards, as is what no sequence holds in a replay."""
    stores: list[Pages] = []
    learn = Pages.learn

    def poisoned(self: Pages, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        is_new = layer not in self.values
        learn(self, layer, key, value)
        if is_new:
            stores.append(self)
            self.keys[layer].fill_(torch.nan)
            self.values[layer].fill_(torch.nan)

    monkeypatch.setattr(Pages, "learn", poisoned)
    tried = continuous(llama(layers=2), Clock(), cache="paged", max_rows=8, max_tokens=512, record=Replays())
    assert stores
    assert all(torch.isnan(pages).all() for store in stores for pages in (*store.keys.values(), *store.values.values()))
    requests = [request(n, prompt(n, 9 + n), max_new_tokens=8 + n) for n in range(3)]
    found = {done.request.key: said(done) for done in tried.run(Feed(iter(requests), look_ahead=9))}
    held = sum(-(-(len(one.prompt_ids) + len(found[one.key][0]) - 1) // 16) for one in requests)
    for store in stores:
        for pages in (*store.keys.values(), *store.values.values()):
            written = ~torch.isnan(pages).flatten(1).all(1)
            assert int(written.sum()) == held
    assert found == drained(requests)[0]


FORMS = [Form(1, 0, 0, 1), Form(8, 0, 0, 8), Form(2, 0, 0, 2), Form(4, 16, 3, 7), Form(4, 0, 0, 4)]


def passes(form: Form, width: int) -> PagedPass:
    work = batch.blank([form], width, torch.device("cpu"), batch_invariant=False).part(form)
    work.input_ids += torch.arange(form.size)
    return work


def test_each_pass_is_replayed_by_the_recording_of_its_own_form() -> None:
    replayed: list[Form] = []

    def compute(work: PagedPass) -> torch.Tensor:
        replayed.append(work.form)
        return work.input_ids[0, :, None].double()

    blank = batch.blank(FORMS, 4, torch.device("cpu"), batch_invariant=False)
    made = Recordings(compute, Replays(), blank, FORMS)
    assert [form.size for form in replayed] == [20, 8, 4, 2, 1], "the largest first"
    for form in (FORMS[4], FORMS[1], FORMS[3], FORMS[0], FORMS[2], FORMS[3], FORMS[1]):
        work = passes(form, 2)
        work.input_ids += 10 * form.size
        work.num_wanted = max(1, form.wanted - 1)
        assert made.serve(work)
        logits = made.replay(work)
        assert replayed[-1] == form
        assert logits[:, 0].tolist() == [10 * form.size + row for row in range(work.num_wanted)]
    assert not made.serve(passes(Form(16, 0, 0, 16), 2)), "no such number of rows"
    assert not made.serve(passes(FORMS[1], 5)), "a sequence that is longer than any was to be"
    assert not made.serve(passes(Form(8, 0, 0, 5), 2)), "fewer logits"
    assert made.num_replayed == 7


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20), st.booleans()), min_size=1, max_size=12), st.data())
def test_a_pass_of_a_form_holds_what_one_of_its_own_size_holds(
    asked: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    """Wherever padding lies: each token has its id, position, slot and row, and each logit that is wanted its place."""
    spans, taken = [], 0
    for start, count, sampled in asked:
        needed = -(-(start + count) // 16)
        table = BlockTable(list(range(100, 100 + start + count)), array("i", range(taken, taken + needed)), start)
        spans.append(Span(ProbePrompt(table.tokens, table), start, count, sampled))
        taken += needed
    size = sum(span.count for span in spans) + data.draw(st.integers(0, 3))
    exact = batch.lay_out(spans, CPU, size, None, False)
    spare = data.draw(st.tuples(*[st.integers(0, 5)] * 4))
    form = Form(*(own + more for own, more in zip(exact.form, spare, strict=True)))
    padded = batch.lay_out(spans, CPU, size, None, False, [form])
    if not any(span.count > 1 for span in spans):
        assert padded.form == exact.form
        return
    assert padded.form == (form if form.rows else exact.form)
    assert told(padded) == told(exact)


def told(work: PagedPass) -> list[Any]:
    """What a pass says of each span: its row's length and blocks, and its tokens' ids, positions, slots and order."""
    found: list[Any] = []
    others = 0
    for number, (span, end) in enumerate(zip(work.spans, work.ends, strict=True)):
        place = slice(end - span.count, end)
        row = number if span.count == 1 else work.num_decoding + others
        if span.count > 1:
            begins = work.starts[others : others + 2] + work.num_decoding
            assert begins.tolist() == [place.start, place.stop]
            others += 1
        blocks = work.tables[row, : -(-span.end // 16)].tolist()
        numbers = (tensor[place].tolist() for tensor in (work.input_ids[0], work.position_ids[0], work.slots))
        logits = [int(one) - place.start for one in work.wanted[: work.num_wanted] if place.start <= one < place.stop]
        found.append((int(work.lengths[row]), blocks, *numbers, logits))
    assert int((work.slots >= 0).sum()) == sum(span.count for span in work.spans)
    assert int((work.lengths > 0).sum()) == len(work.spans)
    return found


def failing() -> Iterator[tuple[str, Callable[..., Any]]]:
    def at_once(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    def late(step: Callable[[], torch.Tensor], made: list[int] = [0]) -> Callable[[], torch.Tensor]:  # noqa: B006
        made[0] += 1
        if made[0] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return step

    yield from (("at once", at_once), ("late", late))


@pytest.mark.parametrize(("_when", "record"), list(failing()))
def test_a_model_that_cannot_be_recorded_is_computed_plainly(_when: str, record: Any) -> None:
    clock = Clock()
    found, facts = drained(mixed()[:10], record=record, clock=clock)
    assert found == drained(mixed()[:10])[0]
    assert (facts.steps_recorded, facts.steps_replayed) == (0, 0)
    assert [name for name, _ in clock.events].count("not_recorded") == 1
