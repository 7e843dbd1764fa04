"""Which sequences are in flight, and which of their tokens the next step computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from batchchat.chats import Request
from batchchat.engines.continuous.base import KVStore
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.sequence import SequenceState

_SHORTEST_CHUNK = 16
_WORTH_WAITING = 32
"""Tokens that a prompt must share with one that is being computed to wait for it."""
_HEADROOM = 32
"""Tokens of the answer that a slot has room for from the start, where memory allows."""


class Scheduler:
    """Admits waiting sequences by free rows and free memory, and plans steps.

    `chunk`: prompt tokens that one step computes at most, so that a long prompt does not stall the others.
    `batch_invariant` (strict mode): a prompt is computed in chunks that begin at multiples of the cache's granularity.
    """

    def __init__(self, cache: KVStore[Any], max_rows: int, chunk: int, batch_invariant: bool = False):
        self.cache = cache
        self.max_rows = max_rows
        self.chunk = chunk
        self.batch_invariant = batch_invariant
        self.running: list[SequenceState] = []
        """In the order of admission."""
        self.allocating: SequenceState | None = None
        """The sequence that is being given a slot; still set where that failed."""
        self.num_preempted = 0
        self.num_reused = 0
        """Prompt tokens taken over from earlier computations."""
        self._waiting: list[SequenceState] = []
        self._suspects: deque[list[SequenceState]] = deque()

    @property
    def room(self) -> int:
        """How many more requests may be taken: none while suspects are computed apart."""
        return 0 if self._suspects else self.max_rows - len(self.running) - len(self._waiting)

    def pick(self, ready: list[Request]) -> tuple[list[Request], list[Request]]:
        """Of the feed's requests those to take now, and the rest: later turns first, whose chats are in the cache,
        then those that may write most, so that the tail of a job is short."""
        ordered = sorted(ready, key=_urgency)
        return ordered[: self.room], ordered[self.room :]

    @property
    def idle(self) -> bool:
        return not (self.running or self._waiting or self._suspects)

    def add(self, sequence: SequenceState) -> None:
        """Let a sequence wait for a slot."""
        self._waiting.append(sequence)

    def admit(self) -> list[SequenceState]:
        """Give slots to waiting sequences. Returns those that cannot be held even alone."""
        while self._suspects and not self._suspects[0] and not self.running:
            self._suspects.popleft()
        waiting = self._suspects[0] if self._suspects else self._waiting
        too_long = []
        for sequence in list(waiting):
            if len(self.running) >= self.max_rows:
                break
            if not self.cache.fits(len(sequence.tokens) + 1):
                waiting.remove(sequence)
                too_long.append(sequence)
                continue
            self.allocating = sequence
            placed = self._place(sequence)
            self.allocating = None
            if placed:
                waiting.remove(sequence)
                self.running.append(sequence)
            elif placed is None:
                break
        return too_long

    def plan(self, drafts: Mapping[SequenceState, tuple[int, ...]]) -> list[Span[SequenceState]]:
        """What the next step computes: one token of every sequence that writes, with its drafts, and up to `chunk`
        prompt tokens.

        Where memory runs out the youngest sequence gives up its slot and waits again. Drafts take no one's slot.
        """
        for sequence in self._going_on():
            while sequence.slot is not None and not self._has_room(sequence):
                self._preempt(self.running[-1])
        spans = []
        reading = []
        for sequence in self._going_on():
            if not sequence.is_writing:
                reading.append(sequence)
                continue
            draft = drafts.get(sequence, ())
            if draft and not self.cache.grow(sequence.placed, len(sequence.tokens) + len(draft)):
                draft = ()
            spans.append(Span(sequence, sequence.placed.computed, 1 + len(draft), True, draft))
        for sequence, count in self._chunks(reading):
            spans.append(Span(sequence, sequence.placed.computed, count, count == sequence.num_pending))
        return spans

    def can_go_ahead(self) -> bool:
        """Whether there is something to compute before the tokens of the last step are read, and room for all of it:
        no one gives up its slot for a sequence that may have ended."""
        going_on = self._going_on()
        return bool(going_on) and all(map(self._has_room, going_on)) and self._all_fit(going_on)

    def _going_on(self) -> list[SequenceState]:
        return [sequence for sequence in self.running if len(sequence.tokens) < sequence.num_whole]

    def _has_room(self, sequence: SequenceState) -> bool:
        slot, length = sequence.placed, len(sequence.tokens)
        return length <= slot.writable or self.cache.grow(slot, length)

    def _all_fit(self, sequences: list[SequenceState]) -> bool:
        return self.cache.fits(max((len(sequence.tokens) for sequence in sequences), default=0))

    def _chunks(self, reading: list[SequenceState]) -> Iterator[tuple[SequenceState, int]]:
        """How many prompt tokens of which sequences this step takes: half of them are for the one admitted first, the
        others go to the shortest first, and what they leave to the first again."""
        if not reading:
            return
        first, *others = reading
        others.sort(key=lambda sequence: sequence.num_pending)
        left = self.chunk - min(first.num_pending, self.chunk // 2)
        for sequence in others:
            count = self._chunk(sequence, left)
            if count:
                left -= count
                yield sequence, count
        yield first, self._chunk(first, min(first.num_pending, self.chunk // 2) + left)

    def _chunk(self, sequence: SequenceState, budget: int) -> int:
        if not self.batch_invariant:
            return min(sequence.num_pending, budget)
        count = min(sequence.num_pending, self.cache.granularity)
        return count if count <= budget else 0

    def outgrown(self) -> list[SequenceState]:
        """Sequences in flight whose next token would not fit even if they were alone."""
        going_on = self._going_on()
        if self._all_fit(going_on):
            return []
        return [sequence for sequence in going_on if not self.cache.fits(len(sequence.tokens))]

    def advance(self, spans: Iterable[Span[SequenceState]]) -> None:
        """The tokens of `spans` are computed."""
        for span in spans:
            self._advance(span.sequence, span.start + span.count)

    def _advance(self, sequence: SequenceState, computed: int) -> None:
        """Others may take over what is computed of tokens that the host knows; in strict mode of the prompt alone."""
        slot = sequence.placed
        self.cache.advance(slot, computed, min(computed, slot.promised if self.batch_invariant else sequence.num_known))

    def settle(self, sequence: SequenceState) -> None:
        """The sequence's next token is known: what was computed of drafts, or ahead, beyond it counts no more."""
        self.cache.cut(sequence.placed, sequence.num_known - 1)

    def finish(self, sequence: SequenceState) -> None:
        """The sequence is done. What it computed stays for prompts that begin with it."""
        self.running.remove(sequence)
        self._advance(sequence, sequence.placed.computed)
        self.cache.retire(sequence.placed)
        sequence.slot = None

    def fail(self, sequence: SequenceState) -> None:
        """The sequence is given up, and its slot cleared."""
        self.running.remove(sequence)
        self.cache.release(sequence.placed, scrub=True)
        sequence.slot = None

    def give_up(self) -> None:
        """Forget all requests; what is computed of them stays for prompts that begin with it."""
        for sequence in list(self.running):
            self.finish(sequence)
        self._waiting.clear()
        self._suspects.clear()

    def bisect(self) -> SequenceState | None:
        """A step failed: take back all that is in flight, to be computed again in two halves, one after the other.
        A sequence that was alone is returned: the failure is its own."""
        suspects = self.running
        self.running = []
        for sequence in suspects:
            self.cache.release(sequence.placed, scrub=True)
            sequence.restart()
        if self._suspects and len(suspects) == 1:
            return suspects[0]
        if self._suspects:
            suspects = suspects + self._suspects.popleft()
        half = len(suspects) // 2
        self._suspects.extendleft([suspects[half:], suspects[:half]])
        return None

    def _place(self, sequence: SequenceState) -> bool | None:
        """True where the sequence has a slot now, False where it waits for a prefix, None where memory is short."""
        tokens = sequence.tokens
        prefix = self.cache.find(tokens)
        if prefix.coming - prefix.usable >= _WORTH_WAITING:
            return False
        least = max(len(tokens), sequence.reached)
        room = max(least, len(tokens) + min(sequence.request.settings.max_new_tokens, _HEADROOM))
        if not self.cache.could_place(room):
            room = least
        slot = self.cache.place(tokens, room, prefix)
        if slot is None:
            return None
        self.cache.promise(slot, len(tokens))
        self.num_reused += slot.computed
        sequence.slot = slot
        return True

    def shrink(self, tokens: int) -> bool:
        """Memory ran out: let the youngest sequences wait until half are left, with at most `tokens` of it, and compute
        shorter pieces of prompts. False where nothing of that can be done."""
        crowded = len(self.running) > 1
        if crowded:
            self.max_rows = len(self.running) // 2
        while len(self.running) > 1 and (len(self.running) > self.max_rows or self.cache.active_tokens > tokens):
            self._preempt(self.running[-1])
        long = not self.batch_invariant and self.chunk > _SHORTEST_CHUNK
        if long:
            self.chunk //= 2
        return crowded or (long and not self.running[0].is_writing)

    def drop(self, sequence: SequenceState) -> None:
        """Give up a sequence, in flight or waiting."""
        if sequence.slot is not None:
            self.fail(sequence)
        else:
            (self._suspects[0] if self._suspects else self._waiting).remove(sequence)

    def _preempt(self, sequence: SequenceState) -> None:
        """Take the slot of the youngest sequence, which waits again and is computed again."""
        self.running.remove(sequence)
        self.cache.release(sequence.placed)
        sequence.reached = len(sequence.tokens)
        sequence.restart()
        self.num_preempted += 1
        (self._suspects[0] if self._suspects else self._waiting).insert(0, sequence)


def _urgency(request: Request) -> tuple[int, int, int, tuple[int, int, int]]:
    return (-request.turn, -request.settings.max_new_tokens, -len(request.prompt_ids), request.key)
