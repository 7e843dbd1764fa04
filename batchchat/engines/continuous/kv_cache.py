"""The KV cache of a run: pools of slots within one budget of tokens, and reuse of what earlier prompts computed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import torch

from batchchat.engines.continuous.acceleration import Acceleration
from batchchat.engines.continuous.attention import attend
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.base import Prefix
from batchchat.engines.continuous.batch import Pass, Span, build_pass
from batchchat.engines.continuous.pools import LayerShape, Pool, Slot, bucket, copy_prefix
from batchchat.engines.continuous.prefix_index import BLOCK_SIZE, PrefixIndex


class KVCache:
    """Slots for up to `budget` tokens in all, counted as allocated (rows times slot length).

    `granularity`: in strict mode only whole chunks of this many tokens are reused, since a chunk's numbers depend on
    where it begins and ends; 1 otherwise.
    """

    def __init__(self, budget: int, granularity: int = 1):
        self.limit = budget
        """What one sequence may take if it is alone."""
        self.budget = budget
        """What several may take together: less than the limit once memory ran out."""
        self.granularity = granularity
        self.forms: Sequence[Any] = ()
        self.shapes: dict[int, LayerShape] = {}
        self.pools: dict[int, Pool] = {}
        self.peak_tokens = 0
        self._clock = itertools.count()
        self._computed: PrefixIndex[Slot] = PrefixIndex()
        """Slots by the tokens that another sequence may take over."""
        self._promised: PrefixIndex[Slot] = PrefixIndex()
        """Active slots by their prompts, computed or not."""

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
                self.release(slot)
            pool.resize(len(pool.slots))

    def find(self, tokens: Sequence[int]) -> Prefix[Slot]:
        """What this prompt shares with the beginnings of slots: never all of it, as its last token's logits are needed.

        A donor is found by whole blocks; shorter beginnings are computed again, which costs no more than copying them.
        """
        most = len(tokens) - 1
        donor, common = self._computed.find(tokens, most)
        usable = 0 if donor is None else self._whole(min(common, donor.reusable))
        coming, common = self._promised.find(tokens, most)
        promised = 0 if coming is None else self._whole(min(common, coming.promised))
        return Prefix(donor if usable else None, usable, max(usable, promised))

    def place(self, tokens: list[int], room: int, prefix: Prefix[Slot] | None = None) -> Slot | None:
        """An active slot for `room` tokens that begins with what `prefix` found, or None where the budget is spent on
        active ones. The prefix's own slot is taken where it is idle and little of it would be lost, else copied."""
        if prefix is None or prefix.donor is None:
            return self._place(tokens, room)
        donor, count = prefix.donor, prefix.usable
        fits = room <= donor.pool.length or self.could_place(room + donor.pool.length)
        if donor.row >= donor.pool.active and fits and 2 * count >= donor.reusable:
            return self._adopt(donor, tokens, count, room)
        return self._place_copy(donor, tokens, count, room)

    def _place(self, tokens: list[int], room: int) -> Slot | None:
        pool = self._pool(bucket(room))
        if not self._make_row(pool):
            return None
        slot = Slot(tokens, pool, -1, last_used=next(self._clock))
        pool.insert(slot)
        return slot

    def _place_copy(self, donor: Slot, tokens: list[int], count: int, room: int) -> Slot | None:
        """A new slot with the first `count` tokens copied from `donor` where they are still there."""
        donor.last_used = next(self._clock)
        slot = self._place(tokens, room)
        if slot is None or donor.pool.slots[donor.row : donor.row + 1] != [donor]:
            return slot
        copy_prefix(donor, slot, count)
        self.advance(slot, count, count)
        return slot

    def _adopt(self, donor: Slot, tokens: list[int], count: int, room: int) -> Slot:
        """Turn an idle slot into the active slot of a sequence that begins with its first `count` tokens."""
        self.cut(donor, count)
        donor.pool.activate(donor)
        donor.tokens, donor.last_used = tokens, next(self._clock)
        try:
            self.grow(donor, room)
        except BaseException:
            self.retire(donor)
            raise
        return donor

    def promise(self, slot: Slot, count: int) -> None:
        """The first `count` tokens of an active slot will be there for others soon, as far as they are whole quanta."""
        slot.promised = self._whole(count)
        self._promised.extend(slot, slot.promised)

    def advance(self, slot: Slot, computed: int, reusable: int) -> None:
        """The slot's first `computed` tokens are there now, and others may take over the first `reusable`."""
        slot.computed, slot.reusable = computed, reusable
        self._computed.extend(slot, reusable)

    def cut(self, slot: Slot, count: int) -> None:
        """Of what is computed at most the first `count` tokens hold."""
        slot.computed = min(slot.computed, count)
        slot.reusable = min(slot.reusable, count)
        self._computed.cut(slot, slot.reusable)

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
        self._promised.remove(slot)
        if slot.reusable < BLOCK_SIZE:
            self.release(slot)

    def release(self, slot: Slot, scrub: bool = False) -> None:
        """Free a slot and forget what it holds. `scrub`: it may hold numbers that are not finite."""
        self._computed.remove(slot)
        self._promised.remove(slot)
        slot.pool.remove(slot, scrub)

    def lay_out(
        self,
        spans: Sequence[Span[Any]],
        device: torch.device,
        size: int | None = None,
        num_logits: int | None = None,
        *,
        batch_invariant: bool = False,
    ) -> Pass:
        """See `build_pass`."""
        return build_pass(spans, device, size, num_logits, batch_invariant=batch_invariant)

    gathers = False

    def attended_by(self) -> None:
        """Slots are attended over in place."""

    def blank(self, forms: Collection[Any], device: torch.device, batch_invariant: bool) -> None:
        """Passes over slots are not recorded: where the slots lie changes with every row that comes or goes."""

    def attend(
        self,
        work: Pass,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
        faster: Acceleration | None = None,
    ) -> torch.Tensor:
        """See `attention.attend`."""
        self.learn(layer, key, value)
        return attend(work, layer, query, key, value, spec, faster)

    def _whole(self, count: int) -> int:
        """Tokens in whole quanta."""
        return count - count % self.granularity

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
            self.release(min(pool.idle, key=lambda slot: slot.last_used))
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
            self.release(slot)
            slot.pool.resize(len(slot.pool.slots))
        return (ceiling - self.allocated) // pool.length
