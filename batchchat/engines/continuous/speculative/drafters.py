"""Where drafts come from: a small model beside the large one, or what followed the same tokens earlier in the chat.

A draft is a guess at the next tokens of an answer, which the model verifies in one pass. Drafts never change an answer:
each token is chosen from the model's own logits, with the request's own random number, and a draft only decides how
many of them one pass gives. So a draft model draws with the same numbers, which makes it guess a sampled token right as
often as its distribution is like the model's. (Verifying many guesses at once: https://arxiv.org/abs/2211.17192; from
the prompt: https://github.com/apoorvumang/prompt-lookup-decoding.)
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Ordered
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch.nn import functional

from batchchat.engines.continuous.base import Allocation
from batchchat.engines.continuous.batch import Span
from batchchat.engines.continuous.caches import make_cache
from batchchat.engines.continuous.model_runner import ModelRunner
from batchchat.engines.continuous.sequence import SequenceState
from batchchat.sampling import SamplerRows

Drafts = Mapping[SequenceState, tuple[int, ...]]


class Drafter(Protocol):
    """Proposes up to `tokens` next tokens."""

    tokens: int

    def propose(self, live: Ordered[SequenceState], sampler: SamplerRows) -> Drafts:
        """Drafts for some or all of the sequences that write, which are in the order of the sampler's rows."""
        ...

    def describe(self) -> Mapping[str, Any]: ...


def room_for_drafts(sequence: SequenceState, tokens: int) -> int:
    """How many tokens may be drafted so that the one behind them is still within the answer's limit."""
    left = sequence.request.settings.max_new_tokens - len(sequence.answer.token_ids)
    return min(tokens, left - 1)


@dataclass(slots=True)
class _Index:
    """Where each run of tokens of a sequence was seen last: the place behind it."""

    seen: int = 0
    places: dict[tuple[int, ...], int] = field(default_factory=dict)


class LookUp:
    """Drafts by prompt look-up: what followed the longest run of up to `longest` last tokens where it occurred before.

    Runs of one token are not looked up: they are wrong too often.
    """

    def __init__(self, tokens: int, longest: int):
        self.tokens = tokens
        self._longest = longest
        self._indices: WeakKeyDictionary[SequenceState, _Index] = WeakKeyDictionary()

    def propose(self, live: Ordered[SequenceState], sampler: SamplerRows) -> Drafts:
        found = {}
        for sequence in live:
            index = self._indices.setdefault(sequence, _Index())
            draft = self._look_up(sequence.tokens, index, room_for_drafts(sequence, self.tokens))
            if draft:
                found[sequence] = draft
        return found

    def describe(self) -> Mapping[str, Any]:
        return {"by": "prompt look-up", "tokens": self.tokens, "ngram": self._longest}

    def _look_up(self, tokens: list[int], index: _Index, count: int) -> tuple[int, ...]:
        if index.seen > len(tokens):  # the sequence was begun again
            index.seen, index.places = 0, {}
        for end in range(index.seen, len(tokens)):  # runs that something follows; the last ones are the question
            for size in range(2, min(self._longest, end) + 1):
                index.places[tuple(tokens[end - size : end])] = end
        index.seen = len(tokens)
        for size in range(min(self._longest, len(tokens) - 1), 1, -1):
            place = index.places.get(tuple(tokens[-size:]))
            if place is not None:
                return tuple(tokens[place : place + count])
        return ()


@dataclass(eq=False, slots=True)
class _Shadow:
    """What the draft model keeps of a sequence: the tokens that it knew, with its own drafts behind them."""

    tokens: list[int]
    slot: Allocation
    known: int = 0

    @property
    def placed(self) -> Allocation:
        return self.slot

    def pending(self) -> Span[_Shadow]:
        """What is not computed yet, with the logits of its last token."""
        return Span(self, self.slot.computed, len(self.tokens) - self.slot.computed, True)

    def catch_up(self, tokens: list[int]) -> int:
        """Take over what the sequence became. Returns how many tokens agree: what is computed holds so far."""
        agreed = self.known
        while agreed < min(len(tokens), len(self.tokens)) and tokens[agreed] == self.tokens[agreed]:
            agreed += 1
        self.tokens[:] = tokens
        self.known = len(tokens)
        return agreed


class ModelDrafts:
    """Drafts by a smaller model with the same vocabulary, whose keys and values are kept in slots of their own."""

    def __init__(self, model: Any, name: str, tokens: int, max_tokens: int, vocab_size: int):
        self.tokens = tokens
        self._name = name
        self._vocab_size = vocab_size
        self._num_ids = int(model.get_input_embeddings().weight.shape[0])
        self._cache = make_cache("auto", model.get_input_embeddings().weight.device, max_tokens)
        self._runner = ModelRunner(model, self._cache)
        self._shadows: dict[SequenceState, _Shadow] = {}

    def propose(self, live: Ordered[SequenceState], sampler: SamplerRows) -> Drafts:
        self._drop(set(self._shadows) - set(live))
        drafts: dict[SequenceState, list[int]] = {}
        for sequence in live:
            if room_for_drafts(sequence, self.tokens) > 0 and self._shadow(sequence):
                drafts[sequence] = []
        for ahead in range(self.tokens):
            writing = [sequence for sequence in drafts if room_for_drafts(sequence, self.tokens) > ahead]
            if not writing:
                break
            guessed = self._guess(writing, live, sampler, ahead)
            for sequence in writing:
                drafts[sequence].append(guessed[sequence])
                self._shadows[sequence].tokens.append(guessed[sequence])
        return {sequence: tuple(draft) for sequence, draft in drafts.items()}

    def describe(self) -> Mapping[str, Any]:
        model = self._runner.model
        return {
            "by": self._name,
            "tokens": self.tokens,
            "parameters": model.num_parameters(),
            "footprint_bytes": model.get_memory_footprint(),
            "kv_peak_tokens": self._cache.peak_tokens,
        }

    def _shadow(self, sequence: SequenceState) -> bool:
        """See that a sequence has a slot with room for its tokens and their drafts. False where memory is short."""
        room = len(sequence.tokens) + self.tokens
        shadow = self._shadows.get(sequence)
        if max(sequence.tokens) >= self._num_ids:
            return False
        if shadow is None:
            shadow = self._begin(list(sequence.tokens), room)
            if shadow is None:
                return False
            self._shadows[sequence] = shadow
        self._cache.cut(shadow.slot, shadow.catch_up(sequence.tokens))
        if self._cache.grow(shadow.slot, room):
            return True
        self._drop({sequence})
        return False

    def _begin(self, tokens: list[int], room: int) -> _Shadow | None:
        slot = self._cache.place(tokens, room, self._cache.find(tokens))
        return None if slot is None else _Shadow(tokens, slot, known=len(tokens))

    def _guess(
        self, writing: list[SequenceState], live: Ordered[SequenceState], sampler: SamplerRows, ahead: int
    ) -> dict[SequenceState, int]:
        """The next token of each of `writing`, after one pass over what the draft model has not computed yet."""
        spans = [self._shadows[sequence].pending() for sequence in writing]
        logits = self._fitted(self._runner.forward(self._cache.lay_out(spans, self._runner.device)))
        for span in spans:
            self._cache.advance(span.slot, span.end, min(span.end, span.sequence.known))
        place = {sequence: number for number, sequence in enumerate(writing)}
        rows = torch.tensor([place.get(sequence, 0) for sequence in live], device=logits.device)
        ids = sampler.guess(logits[rows], ahead).tolist()
        return {sequence: ids[row] for row, sequence in enumerate(live) if sequence in place}

    def _fitted(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits as wide as the large model's: models of one family pad their vocabularies to different sizes."""
        missing = self._vocab_size - logits.shape[-1]
        if missing <= 0:
            return logits[:, : self._vocab_size]
        return functional.pad(logits, (0, missing), value=float("-inf"))

    def _drop(self, gone: set[SequenceState]) -> None:
        """Sequences that no longer write. What is computed of them stays for prompts that begin with it."""
        for sequence in gone:
            self._cache.retire(self._shadows.pop(sequence).slot)
