"""The KV cache of a run: pools of slots within one budget of tokens, and reuse of what earlier prompts computed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from batchchat.engines.continuous.pools import LayerShape, Pool, Slot, bucket, copy_prefix

MIN_REUSE = 16
"""Shorter common prefixes are computed again: that costs no more than copying them."""


class KVCache:
    """Slots for up to `budget` tokens in all, counted as allocated (rows times slot length).

    `quantum`: in strict mode only whole chunks of this many tokens are reused, since a chunk's numbers depend on
    where it begins and ends; 1 otherwise.
    """

    def __init__(self, budget: int, quantum: int = 1):
        self.limit = budget
        """What one sequence may take if it is alone."""
        self.budget = budget
        """What several may take together: less than the limit once memory ran out."""
        self.quantum = quantum
        self.shapes: dict[int, LayerShape] = {}
        self.pools: dict[int, Pool] = {}
        self.peak_tokens = 0
        self._clock = itertools.count()

    @property
    def allocated(self) -> int:
        """Tokens that the allocated rows could hold."""
        return sum(pool.capacity * pool.length for pool in self.pools.values())

    def learn(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        """Take a layer's shape from the first keys and values `[1, heads, tokens, dim]` that it computes."""
        if layer not in self.shapes:
            self.shapes[layer] = LayerShape(key.shape[1], key.shape[3], value.shape[3], key.dtype, key.device)
            for pool in self.pools.values():
                pool.learn(layer)

    def slots(self) -> Iterator[Slot]:
        return itertools.chain.from_iterable(pool.slots for pool in self.pools.values())

    def fits(self, length: int) -> bool:
        """Whether a sequence of `length` tokens could be held, alone."""
        return bucket(length) <= self.limit

    @property
    def active_tokens(self) -> int:
        """Tokens that the rows in use could hold."""
        return sum(pool.active * pool.length for pool in self.pools.values())

    def could_place(self, room: int) -> bool:
        """Whether a slot for `room` tokens could be had now, if need be for everything that is kept for reuse."""
        return self.active_tokens + bucket(room) <= self._ceiling(growing=False)

    def _ceiling(self, growing: bool) -> int:
        """Tokens that may be held with one more slot; `growing` where it is for a sequence that has one already."""
        others = sum(pool.active for pool in self.pools.values()) - growing
        return self.budget if others > 0 else self.limit

    def drop_idle(self) -> None:
        """Give back all memory that no sequence in flight uses."""
        for pool in self.pools.values():
            for slot in list(pool.idle):
                pool.remove(slot)
            pool.resize(len(pool.slots))

    def place(self, tokens: list[int], room: int) -> Slot | None:
        """An active slot for `room` tokens, or None where the budget is spent on active ones."""
        pool = self._pool(bucket(room))
        if not self._make_row(pool):
            return None
        slot = Slot(tokens, pool, -1, last_used=next(self._clock))
        pool.insert(slot)
        return slot

    def place_copy(self, donor: Slot, tokens: list[int], count: int, room: int) -> Slot | None:
        """Like `place`, with the first `count` tokens copied from `donor` where they are still there."""
        donor.last_used = next(self._clock)
        slot = self.place(tokens, room)
        if slot is None or donor.pool.slots[donor.row : donor.row + 1] != [donor]:
            return slot
        copy_prefix(donor, slot, count)
        slot.reusable = count
        return slot

    def grow(self, slot: Slot, room: int) -> bool:
        """See that an active slot has room for `room` tokens; False where the budget is spent on active ones."""
        if room <= slot.pool.length:
            return True
        wider = self._pool(bucket(room))
        if not self._make_row(wider, growing=True):
            return False
        old_pool, old = slot.pool, Slot(slot.tokens, slot.pool, slot.row, slot.computed)
        old_pool.slots[slot.row] = old
        wider.insert(slot)
        copy_prefix(old, slot, old.computed)
        old_pool.remove(old)
        return True

    def retire(self, slot: Slot) -> None:
        """The sequence is done; what it computed stays until its memory is needed."""
        slot.pool.retire(slot)
        slot.last_used = next(self._clock)
        slot.tokens = slot.tokens[: slot.reusable]
        if slot.reusable < MIN_REUSE:
            slot.pool.remove(slot)

    def release(self, slot: Slot, scrub: bool = False) -> None:
        """Free an active slot and forget what it holds."""
        slot.pool.remove(slot, scrub)

    def best_donor(self, tokens: Sequence[int]) -> tuple[Slot | None, int, int]:
        """The slot whose beginning this prompt shares: `(slot, usable, coming)`.

        `usable` tokens can be taken over now, never all of the prompt: its last token's logits are needed. `coming`
        is how many could be once the slots' own prompts are computed.
        """
        wanted = np.asarray(tokens, dtype=np.int64)
        donor: Slot | None = None
        most = coming = 0
        for slot in self.slots():
            common = min(_common_prefix(wanted, slot.tokens), len(tokens) - 1)
            coming = max(coming, self._whole(min(common, max(slot.reusable, slot.promised))))
            usable = self._whole(min(common, slot.reusable))
            if usable > most:
                donor, most = slot, usable
        return (donor, most, coming) if most >= MIN_REUSE else (None, 0, coming)

    def _whole(self, count: int) -> int:
        """Tokens in whole quanta."""
        return count - count % self.quantum

    def adopt(self, donor: Slot, tokens: list[int], count: int) -> Slot:
        """Turn an idle slot into the active slot of a sequence that begins with its first `count` tokens."""
        donor.pool.activate(donor)
        donor.tokens, donor.computed, donor.reusable = tokens, count, count
        donor.last_used = next(self._clock)
        return donor

    def _pool(self, length: int) -> Pool:
        if length not in self.pools:
            self.pools[length] = Pool(length, self.shapes)
        return self.pools[length]

    def _make_row(self, pool: Pool, growing: bool = False) -> bool:
        """See that a pool has a free row: a spare one, a new one within the budget, or that of an idle slot."""
        if len(pool.slots) < pool.capacity:
            return True
        ceiling = self._ceiling(growing)
        spare = (ceiling - self.allocated) // pool.length
        if spare < 1 and pool.idle:
            pool.remove(min(pool.idle, key=lambda slot: slot.last_used))
            return True
        if spare < 1:
            spare = self._reclaim(pool, ceiling)
        if spare < 1:
            return False
        pool.resize(pool.capacity + min(spare, max(2, pool.capacity)))
        self.peak_tokens = max(self.peak_tokens, self.allocated)
        return True

    def _reclaim(self, pool: Pool, ceiling: int) -> int:
        """Give back free rows, then the idle slots used longest ago, until one more row of `pool` fits. Returns how
        many rows fit then. Nothing is dropped where even all idle slots would not be enough."""
        if self.active_tokens + pool.length > ceiling:
            return 0
        for other in self.pools.values():
            other.resize(len(other.slots))
        idle = sorted((slot for other in self.pools.values() for slot in other.idle), key=lambda slot: slot.last_used)
        for slot in idle:
            if self.allocated + pool.length <= ceiling:
                break
            home = slot.pool
            home.remove(slot)
            home.resize(len(home.slots))
        return (ceiling - self.allocated) // pool.length


def _common_prefix(wanted: np.ndarray, tokens: Sequence[int]) -> int:
    """Length of the common beginning."""
    length = min(len(wanted), len(tokens))
    if not length or wanted[0] != tokens[0]:
        return 0
    different = np.flatnonzero(wanted[:length] != np.asarray(tokens[:length], dtype=np.int64))
    return int(different[0]) if len(different) else length
