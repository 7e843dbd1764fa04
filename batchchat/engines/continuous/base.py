"""What engine, scheduler and model runner ask of a KV cache: slots on the CPU, pages on an accelerator."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch

if TYPE_CHECKING:
    from batchchat.engines.continuous.acceleration import Acceleration
    from batchchat.engines.continuous.attention_spec import AttentionSpec
    from batchchat.engines.continuous.batch import Span
    from batchchat.engines.facts import AttentionFacts


class Allocation(Protocol):
    """What one sequence has of a cache."""

    tokens: list[int]
    """The ids that it is for: the sequence's own list, which grows."""
    computed: int
    """The keys and values of so many of them are there."""
    promised: int
    """So many of them will be there for others soon."""

    @property
    def writable(self) -> int:
        """Up to so many tokens there is room, and `grow` has nothing to do."""
        ...


Held = TypeVar("Held", bound=Allocation)
Donor = TypeVar("Donor")


@dataclass(frozen=True, slots=True)
class Prefix(Generic[Donor]):
    """What a cache has of the beginning of a prompt. It holds until the cache is changed."""

    donor: Donor | None
    """Where it lies; None where nothing can be taken over now."""
    usable: int
    """Tokens that can be taken over now."""
    coming: int
    """Tokens that could be once the prompts in flight are computed."""


class PackedPass(Protocol):
    """A forward pass of many sequences' tokens, and what its cache's attention must know to keep them apart."""

    @property
    def spans(self) -> list[Span[Any]]:
        """In the order of their tokens."""
        ...

    @property
    def input_ids(self) -> torch.Tensor:
        """`[1, size]`, padding last."""
        ...

    @property
    def position_ids(self) -> torch.Tensor:
        """`[1, size]`"""
        ...

    @property
    def wanted(self) -> torch.Tensor:
        """Places in the pass whose logits are computed, padding last."""
        ...

    @property
    def num_wanted(self) -> int:
        """How many of them are no padding."""
        ...

    @property
    def size(self) -> int: ...

    @property
    def ends(self) -> list[int]:
        """Where the tokens of each span end."""
        ...


class KVStore(Protocol[Held]):
    """Keys and values of sequences within one budget of tokens, and reuse of what earlier ones computed.

    Where a method returns None or False for want of memory, nothing has changed. Only what an allocation could hold
    counts against the budget; what is kept for reuse is given up when needed, the longest unused first.
    """

    limit: int
    """Tokens that one sequence may take if it is alone."""
    budget: int
    """Tokens that several may take together: less than the limit once memory ran out."""
    forms: Sequence[Any]
    """Those that passes with prompts are padded to where they can be, the smallest first."""
    granularity: int
    """Only multiples of so many tokens are taken over (strict mode); 1 otherwise."""
    peak_tokens: int
    """The most that was held at a time."""

    @property
    def active_tokens(self) -> int:
        """Tokens that the sequences in flight could hold."""
        ...

    def fits(self, length: int) -> bool:
        """Whether a sequence of `length` tokens could be held, alone."""
        ...

    def could_place(self, room: int) -> bool:
        """Whether room for `room` tokens could be had now, if need be for everything that is kept for reuse."""
        ...

    def find(self, tokens: Sequence[int]) -> Prefix[Any]:
        """What can be taken over for a prompt: never all of it, as its last token's logits are needed."""
        ...

    def place(self, tokens: list[int], room: int, prefix: Prefix[Any] | None = None) -> Held | None:
        """An allocation with room for `room` tokens that begins with what `prefix` found; its `computed` says how
        much of that it got. None where the budget is spent on sequences in flight."""
        ...

    def grow(self, slot: Held, room: int) -> bool:
        """See that tokens `[computed, room)` can be written. False where the budget is spent on sequences in flight."""
        ...

    def promise(self, slot: Held, count: int) -> None:
        """The first `count` tokens will be there for others soon, as far as they are whole quanta."""
        ...

    def advance(self, slot: Held, computed: int, reusable: int) -> None:
        """The first `computed` tokens are there now, and others may take over the first `reusable`."""
        ...

    def cut(self, slot: Held, count: int) -> None:
        """Of what is computed at most the first `count` tokens hold."""
        ...

    def retire(self, slot: Held) -> None:
        """The sequence is done; what it computed stays until its memory is needed."""
        ...

    def release(self, slot: Held, scrub: bool = False) -> None:
        """Give an allocation up. `scrub`: it may hold numbers that are not finite, which no one may ever read."""
        ...

    def drop_idle(self) -> None:
        """Give back the memory that no sequence in flight uses, as far as that can be done."""
        ...

    def lay_out(
        self,
        spans: Sequence[Span[Any]],
        device: torch.device,
        size: int | None = None,
        num_logits: int | None = None,
        *,
        batch_invariant: bool = False,
    ) -> Any:
        """A pass of at least `size` tokens over `spans`, for which there is room, with at least `num_logits` logits.
        `batch_invariant`: of just that size, and a token's attention depends on its own sequence alone."""
        ...

    def attended_by(self) -> AttentionFacts | None:
        """Who attends over pages; None where there are none."""
        ...

    @property
    def gathers(self) -> bool:
        """Whether attention takes as long as if all sequences were of the greatest length, once it is recorded."""
        ...

    def blank(self, forms: Collection[Any], device: torch.device, batch_invariant: bool) -> Any | None:
        """A pass of rows that hold nothing, with room for passes of all forms, for recordings to be made of; None where
        they are of no use."""
        ...

    def attend(
        self,
        work: Any,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spec: AttentionSpec,
        faster: Acceleration | None = None,
    ) -> torch.Tensor:
        """Keep the new keys and values `[1, heads, size, dim]` of a pass that was laid out here, and attend over its
        sequences: `[1, size, heads, value_dim]` for `query` `[1, heads, size, dim]`, zeros in padding. `faster`
        may have kernels for it."""
        ...
