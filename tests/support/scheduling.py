"""A scheduler tried with requests that come, are computed and end, on any KV cache."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.scheduler import Scheduler
from batchchat.engines.continuous.sequence import SequenceState
from tests.support.requests import CODEC
from tests.support.zoo import request

Tokens = st.lists(st.integers(0, 2), max_size=6).map(lambda blocks: [n for n in blocks for _ in range(11)])
"""Many of these begin alike, and part within blocks."""


class Scheduling(RuleBasedStateMachine):
    """Requests that come, are computed and end, under a tight budget."""

    rows, budget, chunk = 4, 512, 48

    def __init__(self) -> None:
        super().__init__()
        self.cache = self.make()
        self.scheduler = Scheduler(self.cache, self.rows, self.chunk)
        self.open: set[int] = set()
        self.number = 0

    def make(self) -> Any:
        return KVCache(self.budget)

    @precondition(lambda self: self.scheduler.room > 0)
    @rule(tokens=Tokens.filter(len), answer=st.integers(1, 90))
    def add(self, tokens: list[int], answer: int) -> None:
        self.number += 1
        sequence = SequenceState(request(self.number, tuple(tokens), max_new_tokens=answer), CODEC, 0.0)
        self.scheduler.add(sequence)
        self.open.add(self.number)

    @rule(drafted=st.integers(0, 3), accepted=st.integers(0, 3))
    def step(self, drafted: int, accepted: int) -> None:
        assert self.scheduler.admit() == []
        for sequence in self.scheduler.outgrown():
            self.scheduler.fail(sequence)
            self.open.remove(sequence.request.index)
        drafts = {one: (7,) * drafted for one in self.scheduler.running if one.is_writing}
        spans = self.scheduler.plan(drafts)
        assert sum(span.count for span in spans if not span.sequence.is_writing) <= self.chunk
        assert len({id(span.sequence) for span in spans}) == len(spans)
        assert all(span.sequence in self.scheduler.running for span in spans)
        assert bool(spans) == bool(self.scheduler.running)
        self.scheduler.advance(spans)
        for span in spans:
            if span.sampled:
                sequence = span.sequence
                for token in [*span.drafts[:accepted], 1 + sequence.request.index % 3]:
                    if not sequence.answer.done:
                        sequence.choose()
                        sequence.read(token, None)
                if span.drafts:
                    self.scheduler.settle(sequence)
                if sequence.answer.done:
                    self.scheduler.finish(sequence)
                    self.open.remove(sequence.request.index)

    @precondition(lambda self: self.scheduler.running)
    @rule()
    def bisect(self) -> None:
        guilty = self.scheduler.bisect()
        if guilty is not None:
            self.open.remove(guilty.request.index)

    @invariant()
    def what_is_computed_is_known_and_fits(self) -> None:
        assert len(self.scheduler.running) <= self.rows
        assert self.cache.active_tokens <= self.budget
        for sequence in self.scheduler.running:
            assert sequence.placed.computed <= len(sequence.tokens)

    def teardown(self) -> None:
        for _ in range(3000):
            if self.scheduler.idle:
                break
            self.step(0, 0)
        assert self.scheduler.idle
        assert self.open == set()
        assert self.cache.active_tokens == 0
