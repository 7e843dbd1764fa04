"""Which sequence begins like a prompt, found by hashes of whole blocks of tokens.

A block's hash covers the hash of the block before it, so it stands for all tokens up to its end: the longest common
beginning of a prompt and many sequences is found by looking up the prompt's own hashes, however many those are.
(Method: vLLM's automatic prefix caching, https://docs.vllm.ai/en/latest/design/prefix_caching.html)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Ordered
from hashlib import blake2b
from typing import Generic, Protocol, TypeVar

import numpy as np

BLOCK_SIZE = 16
"""Tokens of a block."""
ROOT = b""
"""The hash before the first block."""

Digest = Callable[[bytes, bytes], bytes]
"""From the hash of the blocks before and a block's token ids (int64, little-endian) to the hash up to its end."""


def chained(before: bytes, block: bytes) -> bytes:
    """The hash of all tokens up to the end of a block: the same in every process and on every machine."""
    return blake2b(before + block, digest_size=16).digest()


def block_hashes(
    tokens: Ordered[int], first: int = 0, before: bytes = ROOT, digest: Digest = chained
) -> Iterator[bytes]:
    """Hashes of the whole blocks of `tokens` from block `first` on, before which stands the hash `before`."""
    whole = len(tokens) // BLOCK_SIZE
    data = np.asarray(tokens[first * BLOCK_SIZE : whole * BLOCK_SIZE], dtype="<i8").tobytes()
    size = 8 * BLOCK_SIZE
    for start in range(0, len(data), size):
        before = digest(before, data[start : start + size])
        yield before


def common_length(one: Ordered[int], other: Ordered[int], known: int, most: int) -> int:
    """Length of the common beginning, at most `most`, of which `known` tokens are known to be common."""
    for place in range(known, min(most, len(one), len(other))):
        if one[place] != other[place]:
            return place
    return min(most, len(one), len(other))


class Holder(Protocol):
    """What holds the keys and values of a beginning of its tokens."""

    @property
    def tokens(self) -> list[int]: ...


Held = TypeVar("Held", bound=Holder)


class PrefixIndex(Generic[Held]):
    """Holders by the hashes of their blocks. A hash only proposes: who is found has been compared token by token.

    `digest`: another hash function, for tests.
    """

    def __init__(self, digest: Digest = chained):
        self._digest = digest
        self._holders: dict[bytes, dict[Held, None]] = {}
        """Per hash who holds the block, the latest last."""
        self._chains: dict[Held, list[bytes]] = {}
        """The hashes of each holder's blocks."""

    def extend(self, holder: Held, count: int) -> None:
        """The holder's first `count` tokens can be found from now on. Costs nothing where no block became whole."""
        chain = self._chains.setdefault(holder, [])
        if len(chain) == count // BLOCK_SIZE:
            return
        before = chain[-1] if chain else ROOT
        for found in block_hashes(holder.tokens[:count], len(chain), before, self._digest):
            self._holders.setdefault(found, {})[holder] = None
            chain.append(found)

    def cut(self, holder: Held, count: int) -> None:
        """Of the holder's tokens only the first `count` can be found from now on."""
        chain = self._chains.get(holder, [])
        for gone in chain[count // BLOCK_SIZE :]:
            holders = self._holders.get(gone, {})
            holders.pop(holder, None)
            if not holders:
                self._holders.pop(gone, None)
        del chain[count // BLOCK_SIZE :]

    def remove(self, holder: Held) -> None:
        """The holder cannot be found any more."""
        self.cut(holder, 0)
        self._chains.pop(holder, None)

    def find(self, tokens: Ordered[int], most: int) -> tuple[Held | None, int]:
        """A holder with as many blocks of the beginning of `tokens` as any, and how many tokens it shares: whole blocks
        and what follows them in this holder, at most `most` in all."""
        hashes = []
        for found in block_hashes(tokens[:most], digest=self._digest):
            if found not in self._holders:
                break
            hashes.append(found)
        for number in range(len(hashes), 0, -1):
            whole = number * BLOCK_SIZE
            wanted = list(tokens[:whole])
            for holder in reversed(self._holders[hashes[number - 1]]):
                if holder.tokens[:whole] == wanted:
                    return holder, common_length(tokens, holder.tokens, whole, most)
        return None, 0

    def __len__(self) -> int:
        """How many different blocks can be found."""
        return len(self._holders)
