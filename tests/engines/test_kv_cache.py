"""The cache in slots, its pools, the prefix index, the scheduler and the layout of passes, each by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchchat.engines.continuous.batch import Span, build_pass
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.pools import Pool, Slot, bucket
from batchchat.engines.continuous.prefix_index import BLOCK_SIZE, PrefixIndex, block_hashes
from tests.support.scheduling import Scheduling, Tokens


@dataclass(eq=False)
class Holder:
    tokens: list[int]


def common(one: list[int], other: list[int]) -> int:
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def test_hashes_are_the_same_in_every_process() -> None:
    assert [found.hex() for found in block_hashes(range(40))] == [
        "d995551d6b33c83d05b8d9a79d1c7671",
        "9474b5b935c5cbc433f968b5edb581f2",
    ]


@pytest.mark.parametrize("bits", [0, 2, 128])
@given(st.lists(Tokens, max_size=6), Tokens, st.data())
def test_who_is_found_shares_as_many_blocks_as_any(
    bits: int, held: list[list[int]], wanted: list[int], data: st.DataObject
) -> None:
    """Even where many hashes collide no one is found who does not begin so."""

    def digest(before: bytes, block: bytes) -> bytes:
        from hashlib import blake2b

        full = blake2b(before + block, digest_size=16).digest()
        return full if bits == 128 else bytes([full[0] % (bits + 1)])

    index: PrefixIndex[Holder] = PrefixIndex(digest)
    counts = {}
    for tokens in held:
        holder = Holder(tokens)
        extended, kept = data.draw(st.integers(0, len(tokens))), data.draw(st.integers(0, len(tokens)))
        index.extend(holder, extended)
        index.cut(holder, kept)
        counts[holder] = min(extended, kept)
        if data.draw(st.booleans()):
            index.extend(holder, len(tokens))
            counts[holder] = len(tokens)
    if counts and data.draw(st.booleans()):
        gone = data.draw(st.sampled_from(list(counts)))
        index.remove(gone)
        del counts[gone]
    most = max(len(wanted) - 1, 0)
    found, shared = index.find(wanted, most)
    if found is not None:
        assert found in counts
        assert shared == min(common(found.tokens, wanted), most) >= BLOCK_SIZE
    if bits == 128:
        shares = [min(common(holder.tokens, wanted), most, count) for holder, count in counts.items()]
        assert shared // BLOCK_SIZE >= max(shares, default=0) // BLOCK_SIZE
    for holder in counts:
        index.remove(holder)
    assert bits < 128 or len(index) == 0


def test_finding_costs_no_more_with_more_slots() -> None:
    """Counted in comparisons of tokens, which the lists that are compared count themselves."""
    looked_at = [0]

    class Counting(list[int]):
        def __getitem__(self, place: Any) -> Any:
            looked_at[0] += len(range(*place.indices(len(self)))) if isinstance(place, slice) else 1
            return super().__getitem__(place)

    costs = []
    for count in (10, 1000):
        index: PrefixIndex[Holder] = PrefixIndex()
        for number in range(count):
            holder = Holder(Counting([*range(320), *[1000 + number] * 80]))
            index.extend(holder, 400)
        looked_at[0] = 0
        assert index.find([*range(320), 1, 2], 321)[1] == 320
        costs.append(looked_at[0])
    assert costs[0] == costs[1] > 0


class Slots(RuleBasedStateMachine):
    """A cache in slots with numbers that name the token that they were computed for."""

    budget = 600

    def __init__(self) -> None:
        super().__init__()
        self.cache = KVCache(self.budget)
        self.cache.learn(0, torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
        self.live: list[Slot] = []

    @rule(tokens=Tokens.filter(len), spare=st.integers(0, 70))
    def place(self, tokens: list[int], spare: int) -> None:
        prefix = self.cache.find(tokens)
        assert prefix.usable < len(tokens)
        possible = self.cache.could_place(len(tokens) + spare)
        slot = self.cache.place(list(tokens), len(tokens) + spare, prefix)
        assert slot is not None or not possible
        if slot is not None:
            assert slot.computed in (0, prefix.usable)
            self.cache.promise(slot, len(tokens))
            self.live.append(slot)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), more=st.integers(0, 2), count=st.integers(1, 40))
    def compute(self, data: st.DataObject, more: int, count: int) -> None:
        slot = data.draw(st.sampled_from(self.live))
        slot.tokens += [more] * (count // 2)
        if not self.cache.grow(slot, len(slot.tokens)):
            self.live.remove(slot)
            self.cache.release(slot)
            return
        end = min(slot.computed + count, len(slot.tokens))
        for place in range(slot.computed, end):
            with torch.inference_mode():
                slot.pool.keys[0][slot.row, 0, place] = code(slot.tokens, place)
        self.cache.advance(slot, end, end)

    @precondition(lambda self: self.live)
    @rule(data=st.data(), how=st.sampled_from(["retire", "release", "scrub", "cut"]))
    def leave(self, data: st.DataObject, how: str) -> None:
        slot = data.draw(st.sampled_from(self.live))
        if how == "cut":
            self.cache.cut(slot, data.draw(st.integers(0, slot.computed)))
            return
        self.live.remove(slot)
        if how == "retire":
            self.cache.retire(slot)
        else:
            self.cache.release(slot, scrub=how == "scrub")

    @rule()
    def drop(self) -> None:
        self.cache.drop_idle()
        assert self.cache.allocated == self.cache.active_tokens

    @invariant()
    def no_slot_is_shared_and_all_hold_what_they_say(self) -> None:
        rows = set()
        for pool in self.cache.pools.values():
            assert pool.active <= len(pool.slots) <= pool.capacity
            for row, slot in enumerate(pool.slots):
                assert (slot.pool, slot.row) == (pool, row)
                rows.add(id(slot))
                assert slot.reusable <= slot.computed <= min(pool.length, max(len(slot.tokens), slot.computed))
                for place in range(min(slot.computed, len(slot.tokens))):
                    assert float(pool.keys[0][row, 0, place]) == code(slot.tokens, place)
        active = {id(slot) for pool in self.cache.pools.values() for slot in pool.slots[: pool.active]}
        assert active == {id(slot) for slot in self.live}

    @invariant()
    def the_budget_is_kept(self) -> None:
        assert self.cache.allocated <= self.budget
        assert self.cache.peak_tokens <= self.budget


def code(tokens: list[int], place: int) -> float:
    """A number for a token and all before it."""
    return float(hash(tuple(tokens[: place + 1])) % 9973 + 1)


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def test_the_slot_that_was_unused_longest_is_given_up() -> None:
    cache = KVCache(3 * 64)
    prompts = [[number] * 40 for number in range(3)]
    for tokens in prompts:
        slot = cache.place(tokens, 64)
        assert slot is not None
        cache.advance(slot, 40, 40)
        cache.retire(slot)
    again = cache.find([*prompts[0], 7])
    assert again.usable == 40
    slot = cache.place([*prompts[0], 7], 41, again)
    assert slot is not None
    cache.retire(slot)
    assert cache.place([9] * 40, 64) is not None
    assert [cache.find([*tokens, 7]).usable for tokens in prompts] == [40, 0, 40]


def test_a_pool_that_cannot_get_memory_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = KVCache(1024)
    cache.learn(0, torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    first = cache.place([1] * 20, 20)
    assert first is not None
    pool, capacity = first.pool, first.pool.capacity

    def refuse(self: Pool, capacity: int) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Pool, "hold", refuse)
    for _ in range(capacity - 1):
        assert cache.place([2] * 20, 20) is not None
    with pytest.raises(torch.OutOfMemoryError):
        cache.place([3] * 20, 20)
    assert (pool.capacity, len(pool.slots)) == (capacity, capacity)


@given(st.integers(1, 5000))
def test_at_most_half_of_a_slot_is_unused(length: int) -> None:
    assert length <= bucket(length)
    assert length <= 64 or bucket(length) < 2 * length


@dataclass(eq=False)
class Placed:
    tokens: list[int]
    placed: Any


@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40), st.booleans()), min_size=1, max_size=8), st.booleans()
)
def test_a_pass_names_each_token_once_and_where_it_goes(
    rows: list[tuple[int, int, bool]], batch_invariant: bool
) -> None:
    cache, spans = KVCache(1 << 14), []
    for number, (start, count, sampled) in enumerate(rows):
        tokens = [1000 * number + place for place in range(start + count)]
        slot = cache.place(tokens, len(tokens))
        spans.append(Span(Placed(tokens, slot), start, count, sampled))
    total = sum(span.count for span in spans)
    work = build_pass(spans, torch.device("cpu"), total + 3, batch_invariant=batch_invariant)
    assert work.size == total + 3
    assert work.num_tokens == total
    ids, positions = work.input_ids[0].tolist(), work.position_ids[0].tolist()
    assert sorted(ids[:total]) == sorted(token for span in spans for token in span.ids)
    assert all(token % 1000 == position for token, position in zip(ids[:total], positions, strict=False))
    assert [ids[place] for place in work.wanted[: work.num_wanted]] == [span.ids[-1] for span in spans if span.sampled]
    where = {}
    for write in work.writes:
        for token, row, place in zip(write.tokens, write.rows, write.places, strict=True):
            where[id(write.pool), int(row), int(place)] = ids[int(token)]
    expected = {
        (id(span.slot.pool), span.slot.row, place): span.sequence.tokens[place]
        for span in spans
        for place in range(span.start, span.end)
    }
    assert where == expected


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
