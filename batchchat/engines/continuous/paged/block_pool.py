"""Blocks of a paged cache: counted references, found again by chained hashes, evicted by least recent use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from batchchat.engines.continuous.prefix_index import ROOT, Digest, chained


@dataclass(eq=False, slots=True)
class CachedBlock:
    """A block that can be found again: by its hash where it is full, else by its parent and its first token.

    Its parent is the block before it, None where it is a prompt's first."""

    number: int
    parent: CachedBlock | None
    tokens: tuple[int, ...]
    digest: bytes | None
    """None where it is not full."""
    children: dict[CachedBlock, None] = field(default_factory=dict)
    """The blocks behind it."""
    begun: dict[int, CachedBlock] = field(default_factory=dict)
    """The one of them that was cached last, by first token."""


class BlockPool:
    """`num_blocks` blocks of `block_size` tokens, by number. A block is held by so many sequences, or cached, or empty.

    Blocks that no one holds are taken in this order: empty ones, then cached ones, the longest unused first. Who gives
    a sequence's blocks back gives the last one back first, so that those behind a block are evicted before it. Where
    they are not, they are found no more either.
    `digest`: another hash function, for tests.
    """

    def __init__(self, num_blocks: int, block_size: int, digest: Digest = chained):
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._digest = digest
        self._references = [0] * num_blocks
        self._empty = list(range(num_blocks - 1, -1, -1))
        self._unused: dict[int, None] = {}
        """Cached blocks that no one holds, the longest unused first."""
        self._cached: dict[int, CachedBlock] = {}
        self._by_digest: dict[bytes, CachedBlock] = {}

    @property
    def num_held(self) -> int:
        return self.num_blocks - self.num_free

    @property
    def num_free(self) -> int:
        """Blocks that no one holds, cached or not."""
        return len(self._empty) + len(self._unused)

    def references(self, block: int) -> int:
        """How many sequences hold a block."""
        return self._references[block]

    def cached(self, block: int) -> CachedBlock | None:
        """What a block can be found by, where it can."""
        return self._cached.get(block)

    def take(self) -> int:
        """A free block for one holder. What it held is forgotten."""
        if self._empty:
            block = self._empty.pop()
        else:
            block = next(iter(self._unused))
            self.forget(block)
            self._empty.remove(block)
        self._references[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more holder of a block that is held or cached."""
        self._unused.pop(block, None)
        self._references[block] += 1

    def give_back(self, block: int, forget: bool = False) -> None:
        """One holder less. `forget`: the last one leaves nothing to be found."""
        assert self._references[block] > 0
        self._references[block] -= 1
        if self._references[block]:
            return
        if block in self._cached:
            self._unused[block] = None
            if forget:
                self.forget(block)
        else:
            self._empty.append(block)

    def find(self, parent: CachedBlock | None, tokens: Sequence[int]) -> CachedBlock | None:
        """The full block of these tokens behind `parent`. Tokens are compared: a hash alone proves nothing."""
        found = self._by_digest.get(self._hash(parent, tokens))
        if found is None or found.parent is not parent or found.tokens != tuple(tokens):
            return None
        return found

    def cache(self, block: int, parent: CachedBlock | None, tokens: Sequence[int]) -> CachedBlock | None:
        """Let a held block be found by its tokens behind `parent`, which its holder holds too.

        Returns what a full block is found by from now on: that of another block, where one was there before. None where
        the hash stands for other tokens, which then stay.
        """
        assert self._references[block] > 0
        self.forget(block)
        digest = self._hash(parent, tokens) if len(tokens) == self.block_size else None
        found = None if digest is None else self._by_digest.get(digest)
        if found is not None:
            return found if found.parent is parent and found.tokens == tuple(tokens) else None
        made = self._cached[block] = CachedBlock(block, parent, tuple(tokens), digest)
        if digest is not None:
            self._by_digest[digest] = made
        if parent is not None:
            before = parent.begun.get(tokens[0])
            if before is not None and before.digest is None:
                self.forget(before.number)
            parent.begun[tokens[0]] = made
            parent.children[made] = None
        return made

    def forget(self, block: int) -> None:
        """Let a block, and with it all behind it, be found no more."""
        gone = self._cached.pop(block, None)
        if gone is None:
            return
        if gone.digest is not None:
            del self._by_digest[gone.digest]
        if gone.parent is not None:
            del gone.parent.children[gone]
            if gone.parent.begun.get(gone.tokens[0]) is gone:
                del gone.parent.begun[gone.tokens[0]]
        for child in list(gone.children):
            self.forget(child.number)
        if block in self._unused:
            del self._unused[block]
            self._empty.append(block)

    def _hash(self, parent: CachedBlock | None, tokens: Sequence[int]) -> bytes:
        before = parent.digest if parent is not None and parent.digest is not None else ROOT
        return self._digest(before, np.asarray(tokens, dtype="<i8").tobytes())
