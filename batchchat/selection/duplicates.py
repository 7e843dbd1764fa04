"""Samples that say again what an earlier one said: the same words, or nearly the same by MinHash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

from batchchat.recipe.keeping import Duplicates
from batchchat.results.sample import Sample
from batchchat.scoring.extras import need
from batchchat.selection.stage import Remove
from batchchat.selection.texts import WITHIN_A_CHAT, text_of, words

_PERMUTATIONS = 128
_SEED = 42


class Deduplication:
    """Lets the first of each kind through. Holds a digest of every text, and 512 bytes for a near comparison.

    Raises EnvironmentFault where near ones are to be found and rensa is not installed: its MinHash took 26 s for
    100,000 texts of 128 words where datasketch took 262 s, and a quarter of the memory, and found as many.
    """

    def __init__(self, step: Duplicates):
        self._step = step
        self._text = text_of(step.of)
        self._library = None if step.near is None else need("rensa", "keep.duplicates.near", "keep")

    def apply(self, samples: Iterable[Sample], remove: Remove) -> Iterator[Sample]:
        seen: dict[bytes, str] = {}
        near = None if self._library is None else _Near(self._library, self._step)
        alone = self._step.of not in WITHIN_A_CHAT
        for sample in samples:
            said = words(self._text(sample)) if near is not None else None
            text = self._text(sample)
            parts = words(text) if said is None else said
            digest = blake2b(" ".join(parts or [text]).encode("utf-8", "surrogatepass"), digest_size=12).digest()
            first = seen.get(digest)
            if first is not None and not (alone and first == sample.id):
                remove(sample, f"it has the {self._step.of} of chat {first}")
                continue
            if first is None and near is not None:
                found = near.find(parts, sample.id if alone else None)
                if found is not None:
                    remove(sample, f"its {self._step.of} is like that of chat {found[0]}: {found[1]:.2f} of 1")
                    continue
                near.add(parts, sample.id)
            seen.setdefault(digest, sample.id)
            yield sample


class _Near:
    """The texts that went on, by the bands of their MinHash signatures."""

    def __init__(self, library: Any, step: Duplicates):
        assert step.near is not None, "a near comparison has a threshold"
        self._library = library
        self._threshold = step.near
        self._shingle = step.shingle
        self._index = library.RMinHashLSH(
            threshold=step.near, num_perm=_PERMUTATIONS, num_bands=_bands(step.near, _PERMUTATIONS)
        )
        self._signatures: list[tuple[Any, str]] = []
        self._last: tuple[list[str], Any] | None = None

    def find(self, parts: list[str], besides: str | None) -> tuple[str, float] | None:
        """(chat, similarity) of the most similar text at or above the threshold, not of the chat `besides`."""
        signature = self._signature(parts)
        if signature is None:
            return None
        found = (self._signatures[number] for number in self._index.query(signature))
        alike = [
            (signature.jaccard(other), -place, chat) for place, (other, chat) in enumerate(found) if chat != besides
        ]
        similarity, _, chat = max(alike, default=(0.0, 0, ""))
        return (chat, similarity) if similarity >= self._threshold else None

    def add(self, parts: list[str], chat: str) -> None:
        signature = self._signature(parts)
        if signature is not None:
            self._index.insert(len(self._signatures), signature)
            self._signatures.append((signature, chat))

    def _signature(self, parts: list[str]) -> Any:
        """None for a text without a word, which is like no other."""
        if not parts:
            return None
        if self._last is None or self._last[0] is not parts:
            size = min(self._shingle, len(parts))
            shingles = set(map(" ".join, zip(*(parts[place:] for place in range(size)), strict=False)))
            signature = self._library.RMinHash(num_perm=_PERMUTATIONS, seed=_SEED)
            signature.update(list(shingles))
            self._last = (parts, signature)
        return self._last[1]


def _bands(threshold: float, permutations: int) -> int:
    """The fewest bands, and so the fewest comparisons, that miss a pair at the threshold less than once in a hundred:
    of `b` bands of `r` rows each, one agrees with the chance 1 - (1 - s^r)^b."""
    counts = [bands for bands in range(1, permutations + 1) if permutations % bands == 0]
    return next(
        bands for bands in counts if (1 - threshold ** (permutations // bands)) ** bands < 0.01 or bands == permutations
    )
