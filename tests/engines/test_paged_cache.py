"""The books of the paged cache, attention over pages, and the engine on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batchchat.chats import Completion
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.engines.continuous.paged import attention
from batchchat.engines.continuous.paged.backends import BACKENDS
from batchchat.engines.continuous.paged.batch import Form, row_bucket
from batchchat.engines.continuous.paged.block_pool import CachedBlock
from batchchat.engines.continuous.paged.block_table import BlockTable, BlockTables
from batchchat.engines.continuous.paged.contract import Seen
from batchchat.engines.continuous.paged.sizing import Trial, page_tokens, try_largest, try_recording
from batchchat.engines.continuous.prefix_index import BLOCK_SIZE
from batchchat.engines.continuous.speculative.drafters import LookUp
from batchchat.errors import EnvironmentFault
from batchchat.schedule import Feed
from tests.support.architectures import ARCHITECTURES
from tests.support.engines import continuous
from tests.support.recording import Replays
from tests.support.requests import mixed, prompt
from tests.support.scheduling import Scheduling, Tokens
from tests.support.zoo import Clock, llama, request


class Books(RuleBasedStateMachine):
    """Sequences come, share, write, are cut and leave. `memory` says which tokens a block was written for: a token is
    written as all tokens up to it, so that a block of another beginning cannot pass for the right one."""

    budget = 20 * BLOCK_SIZE

    @initialize(bits=st.sampled_from([1, 128]))
    def begin(self, bits: int) -> None:
        def digest(before: bytes, block: bytes) -> bytes:
            full = blake2b(before + block, digest_size=16).digest()
            return full if bits == 128 else bytes([full[0] % 3])

        self.books = BlockTables(self.budget, digest=digest)
        self.memory: dict[int, dict[int, tuple[int, ...]]] = {}
        self.live: list[BlockTable] = []

    def copy(self) -> None:
        """What is done before a pass."""
        before = {block: dict(held) for block, held in self.memory.items()}
        for target, source in self.books.copies.items():
            self.memory[target] = dict(before.get(source, {}))
        self.books.copies.clear()

    @rule(tokens=Tokens.filter(len), spare=st.integers(0, 40))
    def place(self, tokens: list[int], spare: int) -> None:
        found = self.books.find(tokens)
        assert found.usable < len(tokens)
        possible = self.books.could_place(len(tokens) + spare)
        table = self.books.place(list(tokens), len(tokens) + spare, found)
        assert table is not None or not possible
        if table is not None:
            assert table.computed <= found.usable
            self.books.promise(table, len(tokens))
            self.live.append(table)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), more=st.integers(0, 2), count=st.integers(1, 40), drafts=st.integers(0, 5))
    def compute(self, data: st.DataObject, more: int, count: int, drafts: int) -> None:
        table = data.draw(st.sampled_from(self.live))
        table.tokens += [more] * (count // 2)
        if table.computed >= len(table.tokens):
            table.tokens.append(more)
        end = min(table.computed + count, len(table.tokens))
        drafts = drafts if end == len(table.tokens) else 0
        held = list(table.blocks), self.books.pool.num_held
        if not self.books.grow(table, end + drafts):
            assert (list(table.blocks), self.books.pool.num_held) == held
            self.live.remove(table)
            self.books.release(table)
            return
        self.copy()
        known = [*table.tokens, *[9] * drafts]
        for place in range(table.computed, end + drafts):
            block = table.blocks[place // BLOCK_SIZE]
            assert self.books.pool.references(block) == 1, "a block that others hold is written"
            self.memory.setdefault(block, {})[place % BLOCK_SIZE] = tuple(known[: place + 1])
        self.books.advance(table, end + drafts, end + drafts)
        if drafts:
            self.books.cut(table, end)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), how=st.sampled_from(["retire", "retire", "release", "scrub", "cut"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        table = data.draw(st.sampled_from(self.live))
        if how == "cut":  # as a draft model does, whose drafts were wrong: other tokens follow
            kept = data.draw(st.integers(0, min(table.computed, len(table.tokens))))
            self.books.cut(table, kept)
            return
        self.live.remove(table)
        if how == "retire":
            self.books.retire(table)
        else:
            self.books.release(table, scrub=how == "scrub")

    @precondition(lambda self: len(self.live) < 1)
    @rule()
    def all_is_free(self) -> None:
        assert self.books.pool.num_free == self.books.pool.num_blocks

    @invariant()
    def references_are_counted(self) -> None:
        if not hasattr(self, "books"):
            return
        pool = self.books.pool
        held = [block for table in self.live for block in table.blocks]
        assert all(held.count(block) == pool.references(block) for block in range(pool.num_blocks))
        assert pool.num_held == len(set(held)) <= self.budget // BLOCK_SIZE
        assert self.books.peak_tokens <= self.budget

    @invariant()
    def everyone_reads_what_was_computed_for_its_tokens(self) -> None:
        if not hasattr(self, "books"):
            return
        waiting = self.books.copies

        def read(block: int, place: int) -> tuple[int, ...] | None:
            return self.memory.get(waiting.get(block, block), {}).get(place)

        for table in self.live:
            assert table.computed <= len(table.blocks) * BLOCK_SIZE
            for place in range(min(table.computed, len(table.tokens))):
                found = read(table.blocks[place // BLOCK_SIZE], place % BLOCK_SIZE)
                assert found == tuple(table.tokens[: place + 1])

    @invariant()
    def what_can_be_found_is_there(self) -> None:
        if not hasattr(self, "books"):
            return
        pool = self.books.pool
        for block in filter(None, map(pool.cached, range(pool.num_blocks))):
            beginning = _beginning(block)
            for place, end in enumerate(range(len(beginning) - len(block.tokens), len(beginning))):
                source = self.books.copies.get(block.number, block.number)
                assert self.memory[source][place] == beginning[: end + 1]
            if block.parent is not None:
                assert pool.cached(block.parent.number) is block.parent


def _beginning(block: CachedBlock) -> tuple[int, ...]:
    return (() if block.parent is None else _beginning(block.parent)) + block.tokens


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


class PagedScheduling(Scheduling):
    budget = 320

    def make(self) -> Any:
        return BlockTables(self.budget)


TestPagedScheduling = PagedScheduling.TestCase
TestPagedScheduling.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)


def computed(books: BlockTables, tokens: list[int]) -> BlockTable:
    """A sequence that is placed and computed."""
    table = books.place(tokens, len(tokens), books.find(tokens))
    assert table is not None
    books.promise(table, len(tokens))
    assert books.grow(table, len(tokens))
    books.advance(table, len(tokens), len(tokens))
    return table


def test_a_thousand_chats_hold_their_system_prompt_once() -> None:
    system, own, chats = 1000, 60, 1000
    books = BlockTables(1 << 21)
    for number in range(chats):
        computed(books, [*range(system), *[5000 + number] * own])
    shared = system // BLOCK_SIZE
    each = -(-(system + own) // BLOCK_SIZE)
    assert (shared, each) == (62, 67)
    assert books.pool.num_held == shared + chats * (each - shared) == 5_062
    assert books.active_tokens == 80_992, "where chats of their own would hold 1,072,000"


def test_samples_share_the_half_filled_block_until_they_write() -> None:
    books = BlockTables(1 << 12)
    prompt_ids = list(range(40))
    computed(books, prompt_ids)
    second = [*prompt_ids]
    found = books.find(second)
    assert found.usable == 39
    table = books.place(second, 40, found)
    assert table is not None
    assert books.pool.num_held == 3
    assert books.grow(table, 40)
    assert books.pool.num_held == 4
    assert list(books.copies.items()) == [(table.blocks[2], 2)]


def test_a_block_that_can_be_found_is_not_written_over() -> None:
    books = BlockTables(5 * BLOCK_SIZE)
    first, second = [1] * 16 + [2] * 16, [1] * 16 + [2] * 8 + [3] * 8
    books.retire(computed(books, first))
    found = books.find(second)
    assert found.usable == 24
    table = books.place(second, 32, found)
    assert table is not None
    assert books.grow(table, 32)
    assert list(books.copies.items()) == [(table.blocks[1], 1)]
    assert books.find([*first, 0]).usable == 32
    full = BlockTables(2 * BLOCK_SIZE)
    full.retire(computed(full, first))
    table = full.place(second, 32, full.find(second))
    assert table is not None
    assert full.grow(table, 32)
    assert not full.copies
    assert full.find([*first, 0]).usable == 16, "where there is no room for a copy, it is given up"


def test_blocks_that_were_unused_longest_are_given_up_from_the_end() -> None:
    books = BlockTables(6 * BLOCK_SIZE)
    first, second = [1] * 48, [2] * 48
    for tokens in (first, second):
        books.retire(computed(books, tokens))
    assert books.find([*first, 0]).usable == 48
    computed(books, [3] * 20)
    assert [books.find([*tokens, 0]).usable for tokens in (first, second)] == [16, 48]


def test_a_preempted_sequence_finds_its_blocks_again_and_a_failed_one_does_not() -> None:
    books = BlockTables(1 << 10)
    for scrub, usable in ((False, 40), (True, 0)):
        books.release(computed(books, [int(scrub)] * 40), scrub=scrub)
        assert books.find([int(scrub)] * 50).usable == usable


@given(st.integers(1, 300))
def test_row_buckets(rows: int) -> None:
    bucket = row_bucket(rows)
    assert rows <= bucket < rows + 8
    assert bucket in (1, 2, 4) or bucket % 8 == 0


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize(("window", "softcap", "sinks"), [(None, None, False), (7, None, True), (20, 5.0, False)])
def test_attention_over_pages(kv_heads: int, window: int | None, softcap: float | None, sinks: bool) -> None:
    """Against plain attention in float64; what lies behind the lengths and in other blocks is NaN."""
    torch.manual_seed(kv_heads)
    heads, dim, value_dim, counts, lengths = 4, 8, 6, [1, 5, 16, 3, 0], [1, 37, 16, 64, 0]
    keys, values = (torch.full((20, 16, kv_heads, size), float("nan")) for size in (dim, value_dim))
    order = random.Random(0).sample(range(20), 20)
    tables = torch.tensor([[order[4 * row + place] for place in range(4)] for row in range(5)], dtype=torch.int32)
    dense = [(torch.randn(n, kv_heads, dim), torch.randn(n, kv_heads, value_dim)) for n in lengths]
    for row, (key, value) in enumerate(dense):
        places = torch.arange(lengths[row])
        slots = tables[row].long()[places // 16] * 16 + places % 16
        padded = torch.cat((slots, torch.tensor([-1])))
        attention.write(*(torch.cat((t, t.new_full((1, *t.shape[1:]), 9))) for t in (key, value)), keys, values, padded)
    query = torch.randn(sum(counts) + 2, heads, dim)
    starts = torch.tensor([0, *torch.tensor(counts).cumsum(0)], dtype=torch.int32)
    scores_of_sinks = torch.randn(heads) if sinks else None
    spec = AttentionSpec(0.3, window, softcap, scores_of_sinks)
    seen = Seen(keys, values, tables, torch.tensor(lengths, dtype=torch.int32))
    out = attention.prefill(query, seen, starts, spec)
    for row, (key, value) in enumerate(dense):
        for number in range(counts[row] if lengths[row] else 0):
            place = int(starts[row]) + number
            position = lengths[row] - counts[row] + number
            first = 0 if window is None else max(0, position + 1 - window)
            for head in range(heads):
                kv = head // (heads // kv_heads)
                scores = key[first : position + 1, kv].double() @ query[place, head].double() * 0.3
                if softcap is not None:
                    scores = softcap * torch.tanh(scores / softcap)
                if scores_of_sinks is not None:
                    scores = torch.cat((scores, scores_of_sinks[head : head + 1].double()))
                weights = torch.softmax(scores, 0)[: position + 1 - first]
                expected = weights @ value[first : position + 1, kv].double()
                assert torch.allclose(out[place, head].double(), expected, atol=1e-5)
    assert not out[sum(counts) :].any()
    last = torch.tensor([int(end) - 1 if count else 0 for end, count in zip(starts[1:], counts, strict=True)])
    decoded = attention.decode(query[last], seen, spec)
    assert torch.allclose(decoded[:4], out[last[:4]], atol=1e-6)
    assert not decoded[4].any()


def answer(
    requests: Any, turns: int = 1, clock: Clock | None = None, **kinds: Any
) -> tuple[dict[Any, Completion], Any]:
    """Completions by the requests' keys, and the engine's facts."""
    tried = continuous(llama(), clock or Clock(), **{"cache": "paged", "max_rows": 8, **kinds})
    feed = Feed(iter(requests), look_ahead=1000)
    found = {}
    for done in tried.run(feed):
        found[done.request.key] = done
        if done.request.turn < turns - 1 and done.error is None:
            following = (*done.request.prompt_ids, *done.token_ids, 9, 8)
            feed.put(replace(done.request, turn=done.request.turn + 1, prompt_ids=following))
    return found, tried.describe()


def tokens(found: dict[Any, Completion]) -> dict[Any, tuple[int, ...]]:
    return {key: done.token_ids for key, done in found.items()}


@pytest.mark.parametrize("more", [{}, {"batch_invariant": True}, {"max_tokens": 320}, {"overlap": True}], ids=str)
def test_answers_over_pages_are_those_over_slots(more: dict[str, Any]) -> None:
    slots, _ = answer(mixed()[:24], turns=2, cache="slots")
    pages, facts = answer(mixed()[:24], turns=2, **more)
    assert tokens(pages) == tokens(slots)
    assert facts.prompt_tokens_reused > 0
    assert facts.kv_peak_tokens <= more.get("max_tokens", 8192)
    assert (facts.preempted > 0) is ("max_tokens" in more)


def test_strict_bits_do_not_depend_on_the_crowd() -> None:
    requests = [replace(one, settings=replace(one.settings, logprobs=3)) for one in mixed()[:14]]
    crowd, _ = answer(requests, batch_invariant=True, max_rows=14)
    tight, facts = answer(requests, batch_invariant=True, max_tokens=256)
    assert facts.preempted > 0
    alone, _ = answer(requests, batch_invariant=True, max_rows=1)
    for key, done in crowd.items():
        for other in (tight[key], alone[key]):
            assert (other.token_ids, other.logprobs) == (done.token_ids, done.logprobs)


def test_what_is_shared_is_computed_once() -> None:
    clock = Clock()
    shared = prompt(0, 300)
    chats = [request(n, shared + prompt(n + 1, 10), max_new_tokens=4) for n in range(12)]
    answer(chats, clock=clock, max_rows=12)
    assert sum(batch[1] for batch in clock.batches) <= 300 + 12 * 10
    clock = Clock()
    samples = [replace(request(0, prompt(0, 150), temperature=1.0, seed=n), sample=n, index=n) for n in range(8)]
    found, _ = answer(samples, clock=clock)
    assert sum(batch[1] for batch in clock.batches) == 150 + 7
    assert len(set(tokens(found).values())) == 8


def test_drafts_are_verified_over_pages() -> None:
    requests = [request(n, prompt(n, 12) * 3, max_new_tokens=30) for n in range(6)]
    plain, _ = answer(requests)
    for budget in (8192, 256):
        drafted, facts = answer(requests, drafter=LookUp(4, 3), always_draft=True, max_tokens=budget)
        assert tokens(drafted) == tokens(plain)
        assert facts.drafts.proposed > 0


@pytest.mark.parametrize("failing", [True, False], ids=["memory", "exception"])
def test_a_step_that_fails_costs_no_answer(failing: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = [request(n, prompt(n, 20 + n), max_new_tokens=12) for n in range(10)]
    plain, _ = answer(requests)
    forward = ModelRunner.forward

    def limited(self: Any, work: Any, every: bool = False) -> Any:
        if len(work.spans) > 3:
            raise torch.OutOfMemoryError("out of memory") if failing else RuntimeError("no such kernel")
        return forward(self, work, every)

    monkeypatch.setattr(ModelRunner, "forward", limited)
    found, _ = answer(requests)
    assert tokens(found) == tokens(plain)


def test_numbers_that_are_none_stay_in_their_chat() -> None:
    model = ARCHITECTURES[0].model()
    with torch.no_grad():
        model.get_input_embeddings().weight[478] = float("nan")
    tried = continuous(model, Clock(), max_rows=2, max_tokens=256, cache="paged")
    spoiled = [request(n, (478, *prompt(0, 60))) for n in (0, 1)]
    sound = [request(n, prompt(n, 40 + n), max_new_tokens=4) for n in range(2, 9)]
    found = {done.request.index: done for done in tried.run(Feed(iter([*spoiled, *sound]), look_ahead=19))}
    assert [found[n].finish_reason for n in range(9)] == ["error"] * 2 + ["length"] * 7


def test_the_budget_of_an_accelerator_is_what_is_free_beside_weights_and_a_pass() -> None:
    device = torch.device("cuda")
    trial = Trial(pass_bytes=2_000_000, block_bytes=1000)
    assert page_tokens(trial, device, lambda device: 10**8) == (95_000 - 3_000) * BLOCK_SIZE
    assert page_tokens(trial, device, lambda device: 10**15) == 1 << 24
    with pytest.raises(EnvironmentFault, match=r"0.00 GB are free on cuda .*; free the device"):
        page_tokens(trial, device, lambda device: 3_000_000)


def test_a_trial_pass_tells_its_memory_from_that_of_the_pages() -> None:
    def peak(device: torch.device, run: Callable[[], None]) -> int:
        run()
        return 10**6

    trial = try_largest(llama(), 100, 8, peak)
    config = llama().config
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * (config.hidden_size // 4) * 4
    assert trial.block_bytes == BLOCK_SIZE * a_token
    assert trial.pass_bytes == 10**6 - 7 * trial.block_bytes


def forms(*rows: int) -> list[Form]:
    return [Form(number, 0, 0, number) for number in rows]


def test_recordings_are_counted_before_the_pages_are_sized() -> None:
    """Two are made, with the memory of the largest, and the second stands for the others."""
    left = iter([1000, 700, 680, 1000, 700])
    assert (
        try_recording(llama(layers=1), forms(1, 2, 4, 8, 16), Replays(), free=lambda device: next(left)) == 300 + 4 * 20
    )
    assert try_recording(llama(layers=1), forms(16), Replays(), free=lambda device: next(left)) == 300
    device = torch.device("cuda")
    trial = Trial(pass_bytes=0, block_bytes=1000, recorded_bytes=50_000)
    assert page_tokens(trial, device, lambda device: 10**6) == 900 * BLOCK_SIZE
    with pytest.raises(EnvironmentFault, match=r"0\.05 GB of recorded steps"):
        page_tokens(trial._replace(recorded_bytes=5 * 10**7), device, lambda device: 10**7)

    def refused(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        raise RuntimeError("operation not permitted when stream is capturing")

    assert try_recording(llama(layers=1), forms(1, 2), refused, free=lambda device: 1000) == 0


def test_a_trial_pass_that_does_not_fit_is_said_in_a_sentence() -> None:
    def peak(device: torch.device, run: Callable[[], None]) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with pytest.raises(EnvironmentFault, match=r"for one pass; free the device, lower engine.max_batch_rows"):
        try_largest(llama(layers=1), 100, 8, peak)


@pytest.mark.parametrize("name", ["gemma2, window 50", "gpt_oss, window 50"])
def test_an_accelerators_own_backends_serve_the_pages(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their trial, of shorter rows as the interpreter is slow, and that all speak of the same layout."""
    monkeypatch.setattr("batchchat.engines.continuous.paged.trial._LENGTHS", (1, 20))
    model = next(architecture for architecture in ARCHITECTURES if architecture.name == name).model()
    requests = [request(n, prompt(n, 30 * n + 1), max_new_tokens=3) for n in range(4)]
    found = []
    for kinds in ({}, {"cpu": BACKENDS["cuda"]}):
        monkeypatch.setattr("batchchat.engines.continuous.paged.backends.BACKENDS", kinds)
        tried = continuous(model, Clock(), max_rows=4, max_tokens=512, cache="paged")
        found.append({done.request.index: done.token_ids for done in tried.run(Feed(iter(requests), look_ahead=9))})
    assert found[0] == found[1]
