"""What a step chose: on the device as soon as it is known there, and read by the host when it is needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from batchchat.chats import Logprob


@dataclass(frozen=True, slots=True)
class Tops:
    """Log-probabilities of the rows that asked for some."""

    rows: tuple[int, ...]
    counts: tuple[int, ...]
    """How many of the most likely tokens each of them wants."""
    chosen: torch.Tensor
    """[asked]: those of the chosen tokens."""
    values: torch.Tensor
    """[asked, most], the most likely first; ties in any order."""
    tokens: torch.Tensor
    """[asked, most] int64: of which tokens these are."""


@dataclass(frozen=True, slots=True)
class Told:
    """A step's choice, row by row, as the host knows it."""

    ids: list[int]
    failed: list[bool]
    logprobs: list[Logprob | None] | None = None
    """None where no row asked."""
    reasons: Mapping[int, str] = field(default_factory=dict)
    """Why rows failed, where that is known: their form allows no token."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One step. `ids` [rows] int64; `failed` [rows] bool marks rows without any token to choose (NaN, +inf or only
    -inf logits), whose id means nothing."""

    ids: torch.Tensor
    failed: torch.Tensor
    tops: Tops | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)
    """Rows whose form allows no token, and why."""

    @property
    def logprobs(self) -> list[Logprob | None] | None:
        """One per row, None for rows that did not ask; None where no row did. Waits for the device."""
        return self.read().logprobs

    def read(self) -> Told:
        """All of it. Waits for the device."""
        return self.told(self.packed())

    def packed(self) -> torch.Tensor:
        """All of it in one piece, float64 [numbers], for one copy: token ids and float32 are exact in it."""
        ids = self.ids.masked_fill(self.failed, -1)
        if self.tops is None:
            return ids.double()
        tops = self.tops
        parts = (ids, tops.chosen, tops.values.flatten(), tops.tokens.flatten())
        return torch.cat([part.double() for part in parts])

    def told(self, packed: torch.Tensor) -> Told:
        """What `packed` gave, once it is on the host. The id of a row that failed is -1."""
        numbers = packed.tolist()
        rows = len(self.ids)
        ids = [int(number) for number in numbers[:rows]]
        logprobs = None if self.tops is None else _logprobs(self.tops, ids, numbers[rows:])
        return Told(ids, [number < 0 for number in ids], logprobs, self.reasons)


def _logprobs(tops: Tops, ids: list[int], numbers: list[float]) -> list[Logprob | None]:
    asked, most = tops.values.shape
    found: list[Logprob | None] = [None] * len(ids)
    for place, (row, count) in enumerate(zip(tops.rows, tops.counts, strict=True)):
        first = asked + place * most
        values = numbers[first : first + most]
        tokens = map(int, numbers[first + asked * most : first + asked * most + most])
        pairs = [pair for pair in zip(tokens, values, strict=True) if pair[1] > -math.inf]
        ranked = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))
        found[row] = Logprob(ids[row], numbers[place], tuple(ranked[:count]))
    return found


Reading = Callable[[], Told]
"""Waits until a choice is on the host."""
Reader = Callable[[Choice], Reading]
"""Starts to copy a choice to the host."""


def reader(device: torch.device) -> Reader:
    """How choices of a device are read: from CUDA by one copy beside whatever is computed next."""
    return _from_cuda if device.type == "cuda" else lambda choice: choice.read


def _from_cuda(choice: Choice) -> Reading:
    packed = choice.packed()
    host = torch.empty(1 + len(packed), dtype=packed.dtype, pin_memory=True)[1:]  # a step may have no tokens
    host.copy_(packed, non_blocking=True)
    there = torch.cuda.Event()
    there.record(torch.cuda.current_stream(packed.device))

    def read() -> Told:
        there.synchronize()
        return choice.told(host)

    return read
