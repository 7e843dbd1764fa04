"""Who holds which blocks: allocating, growing, sharing and giving back, without a tensor.

A beginning is shared block by block. Of the block in which a prompt parts from what is cached, the common tokens are
shared too: whoever is to write into a block that others hold or may find takes a copy first.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from batchchat.engines.continuous.base import Prefix
from batchchat.engines.continuous.paged.block_pool import BlockPool, CachedBlock
from batchchat.engines.continuous.prefix_index import BLOCK_SIZE, Digest, PrefixIndex, chained, common_length


@dataclass(eq=False, slots=True)
class BlockTable:
    """The blocks of one sequence, in the order of its `tokens`."""

    tokens: list[int]
    blocks: array[int]
    """int32"""
    computed: int = 0
    """The keys and values of so many tokens are there."""
    reusable: int = 0
    """So many of them another sequence may take over."""
    promised: int = 0
    """So many tokens will be reusable, if the sequence goes on."""
    writable: int = 0
    """Up to so many tokens blocks are known to be there and to be the sequence's alone."""
    chain: list[CachedBlock] = field(default_factory=list)
    """What its first blocks, all full, are found by."""


@dataclass(frozen=True, slots=True)
class Found:
    """Cached blocks with the beginning of a prompt: full ones, and one of which only the first tokens are common."""

    full: list[CachedBlock]
    part: CachedBlock | None = None


class BlockTables:
    """The books of a paged cache for up to `budget` tokens in all: see `base.KVStore` for what its methods promise."""

    def __init__(self, budget: int, granularity: int = 1, digest: Digest = chained):
        self.limit = budget
        self.budget = budget
        self.granularity = granularity
        self.pool = BlockPool(max(1, budget // BLOCK_SIZE), BLOCK_SIZE, digest)
        self.peak_tokens = 0
        self.copies: dict[int, int] = {}
        """Blocks that are to be filled before the next pass, and from which."""
        self._num_active = 0
        self._promised: PrefixIndex[BlockTable] = PrefixIndex(digest)

    @property
    def active_tokens(self) -> int:
        return self.pool.num_held * BLOCK_SIZE

    def fits(self, length: int) -> bool:
        return _blocks(length) <= self.pool.num_blocks

    def could_place(self, room: int) -> bool:
        return _blocks(room) <= self._spare(self._num_active)

    def find(self, tokens: Sequence[int]) -> Prefix[Found]:
        most = len(tokens) - 1
        full: list[CachedBlock] = []
        parent: CachedBlock | None = None
        for start in range(0, most - most % BLOCK_SIZE, BLOCK_SIZE):
            parent = self.pool.find(parent, tokens[start : start + BLOCK_SIZE])
            if parent is None:
                break
            full.append(parent)
        usable = self._whole(len(full) * BLOCK_SIZE)
        del full[usable // BLOCK_SIZE :]
        part = full[-1].begun.get(tokens[usable]) if full and self.granularity == 1 and usable < most else None
        if part is not None:
            usable += common_length(tokens[usable:most], part.tokens, 0, BLOCK_SIZE - 1)
        coming, common = self._promised.find(tokens, most)
        promised = 0 if coming is None else self._whole(min(common, coming.promised))
        return Prefix(Found(full, part) if full else None, usable, max(usable, promised))

    def place(self, tokens: list[int], room: int, prefix: Prefix[Found] | None = None) -> BlockTable | None:
        found = Found([]) if prefix is None or prefix.donor is None else prefix.donor
        for part in dict.fromkeys((found.part, None)):
            shared = [*found.full, *([] if part is None else [part])]
            revived = sum(not self.pool.references(block.number) for block in shared)
            new = _blocks(room) - len(shared)
            copied = part is not None  # before its first token is computed
            if new + revived + copied <= self._spare(self._num_active):
                break
        else:
            return None
        for block in shared:
            self.pool.share(block.number)
        blocks = array("i", [block.number for block in shared])
        blocks.extend(self.pool.take() for _ in range(new))
        count = len(found.full) * BLOCK_SIZE if part is None or prefix is None else prefix.usable
        self._num_active += 1
        self._measure()
        return BlockTable(tokens, blocks, count, count, chain=list(found.full))

    def grow(self, slot: BlockTable, room: int) -> bool:
        if room <= max(slot.computed, slot.writable):
            return True
        written = range(slot.computed // BLOCK_SIZE, min(_blocks(room), len(slot.blocks)))
        shared = [place for place in written if self.pool.references(slot.blocks[place]) > 1]
        new = max(0, _blocks(room) - len(slot.blocks))
        if not (new or shared) and not any(self._is_found(slot, place) for place in written):
            slot.writable = len(slot.blocks) * BLOCK_SIZE if written and written[-1] == len(slot.blocks) - 1 else 0
            return True
        spare = self._spare(self._num_active - 1)
        if new + len(shared) > spare:
            return False
        spare -= new + len(shared)
        for place in written:
            if place in shared or (self._is_found(slot, place) and spare > 0):
                spare -= place not in shared
                self._copy(slot, place)
            elif self._is_found(slot, place):
                self.pool.forget(slot.blocks[place])
        slot.blocks.extend(self.pool.take() for _ in range(new))
        self._measure()
        return True

    def promise(self, slot: BlockTable, count: int) -> None:
        slot.promised = self._whole(count)
        self._promised.extend(slot, slot.promised)

    def advance(self, slot: BlockTable, computed: int, reusable: int) -> None:
        slot.computed, slot.reusable = computed, reusable
        if reusable // BLOCK_SIZE > len(slot.chain):
            self._cache_full(slot)
        if reusable == slot.promised:
            self._cache_tail(slot)

    def _cache_full(self, slot: BlockTable) -> None:
        """Let the tokens of further blocks that are full be found."""
        while len(slot.chain) < min(slot.reusable, len(slot.tokens)) // BLOCK_SIZE:
            place = len(slot.chain)
            tokens = slot.tokens[place * BLOCK_SIZE : (place + 1) * BLOCK_SIZE]
            found = self.pool.cache(slot.blocks[place], slot.chain[-1] if slot.chain else None, tokens)
            if found is None:
                break
            if found.number != slot.blocks[place]:  # computed twice, kept once
                self.pool.share(found.number)
                self.pool.give_back(slot.blocks[place])
                slot.blocks[place] = found.number
            slot.chain.append(found)
            slot.writable = 0

    def cut(self, slot: BlockTable, count: int) -> None:
        if count < slot.computed:
            slot.writable = 0
        slot.computed = min(slot.computed, count)
        slot.reusable = min(slot.reusable, count)
        del slot.chain[slot.reusable // BLOCK_SIZE :]

    def retire(self, slot: BlockTable) -> None:
        self._cache_tail(slot)
        self.release(slot)

    def release(self, slot: BlockTable, scrub: bool = False) -> None:
        """Blocks that are full stay to be found, unless `scrub`. None is cleared: no place is read before it is
        written."""
        self._promised.remove(slot)
        for block in reversed(slot.blocks):
            self.pool.give_back(block, forget=scrub)
        del slot.blocks[:]
        self._num_active -= 1

    def _cache_tail(self, slot: BlockTable) -> None:
        """Let the tokens behind the last full block be found."""
        first = len(slot.chain) * BLOCK_SIZE
        tail = slot.tokens[first : slot.reusable]
        if slot.chain and tail and len(tail) < BLOCK_SIZE and self.pool.references(slot.blocks[len(slot.chain)]) == 1:
            slot.writable = 0
            self.pool.cache(slot.blocks[len(slot.chain)], slot.chain[-1], tail)

    def _is_found(self, slot: BlockTable, place: int) -> bool:
        """Whether what will be written over in a block of the sequence can be found."""
        cached = self.pool.cached(slot.blocks[place])
        return cached is not None and place * BLOCK_SIZE + len(cached.tokens) > slot.computed

    def _copy(self, slot: BlockTable, place: int) -> None:
        source, target = slot.blocks[place], self.pool.take()
        self.copies[target] = self.copies.get(source, source)
        self.pool.give_back(source)
        slot.blocks[place] = target

    def _spare(self, others: int) -> int:
        """Blocks that a sequence beside so many others may take."""
        return max(1, (self.budget if others else self.limit) // BLOCK_SIZE) - self.pool.num_held

    def _whole(self, count: int) -> int:
        return count - count % self.granularity

    def _measure(self) -> None:
        self.peak_tokens = max(self.peak_tokens, self.active_tokens)


def _blocks(tokens: int) -> int:
    return -(-tokens // BLOCK_SIZE)
