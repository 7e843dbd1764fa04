"""What a layer asks of attention over pages, who can serve it, and why not who cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from batchchat.engines.cuda import gathered, paged, varlen


@dataclass(frozen=True)
class LayerKind:
    """All that decides whether a backend can serve a layer."""

    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    block_size: int
    dtype: torch.dtype
    device: torch.device
    softcap: bool = False
    sinks: bool = False


class PagedAttention(Protocol):
    """Attention of a layer over `keys` `[num_blocks, block_size, kv_heads, key_dim]` and `values` alike, as `new_pages`
    makes them; modules serve it.

    `tables` int32 `[rows, max_blocks]` names each row's blocks in order, and `lengths` int32 `[rows]` how many tokens
    of each are there, those of this pass included. A row's first `ceil(length / block_size)` entries are read, and no
    place behind its length: what lies there, be it NaN, has no effect. A row of length 0 is padding, whose results are
    0. Only the shapes decide what is launched, so that one recording serves all tables and lengths of a shape.

    Scores are scaled by `scaling`; a query sees the last `window` keys, its own included; `softcap` bends scores to
    `softcap * tanh(score / softcap)`; `sinks` `[heads]` are scores that take part in the softmax and bring no value.
    """

    def unsupported(self, kind: LayerKind) -> str | None:
        """Why a layer cannot be served here, as a sentence; None where it can."""

    def write(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
    ) -> None:
        """Keep `key` `[tokens, kv_heads, key_dim]` and `value` alike: a token's slot, int64 `[tokens]`, is
        `block * block_size + place`, or -1 for padding, which is not written."""

    def rotate_and_write(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cosines: torch.Tensor,
        sines: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        slots: torch.Tensor,
        interleaved: bool = False,
    ) -> torch.Tensor:
        """The same with keys turned by their positions; returns the queries `[tokens, heads, key_dim]` turned.

        `cosines` and `sines` `[tokens, rotary_dim // 2]`: the first `rotary_dim` numbers of a head are turned, number
        `i` with number `i + rotary_dim // 2`, or with `interleaved` `2 * i` with `2 * i + 1`.
        """

    def decode(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        tables: torch.Tensor,
        lengths: torch.Tensor,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: torch.Tensor | None = None,
        *,
        strict: bool = False,
    ) -> torch.Tensor:
        """Attention of each row's last tokens, equally many of each row: `query` `[rows * count, heads, key_dim]`, row
        by row; returns `[rows * count, heads, value_dim]`.

        A row with fewer tokens has its padding in front, where it sees what the row's earlier tokens see. With
        `strict` the bits of a row depend on the row (and `count`) alone, not on the other rows, their number, its place
        among them or the width of `tables`.
        """

    def prefill(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        tables: torch.Tensor,
        lengths: torch.Tensor,
        starts: torch.Tensor,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
        sinks: torch.Tensor | None = None,
        *,
        strict: bool = False,
    ) -> torch.Tensor:
        """The same with as many tokens of each row as there are: those of row `i` are `query[starts[i]:starts[i + 1]]`
        (int32 `[rows + 1]`, the first 0), the last tokens of the row. Tokens behind the last row's are padding, whose
        results are 0."""


class Candidate(NamedTuple):
    """A backend and why it cannot serve a layer; None where it can."""

    name: str
    backend: PagedAttention
    why_not: str | None


_BACKENDS: dict[str, PagedAttention] = {"triton": paged, "torch varlen": varlen, "gathered": gathered}


def candidates(kind: LayerKind) -> Iterator[Candidate]:
    """All backends, the ones that should be the fastest first."""
    for name, backend in _BACKENDS.items():
        yield Candidate(name, backend, backend.unsupported(kind))


def choose(kind: LayerKind) -> Candidate:
    """The first backend that can serve a layer: `gathered` can serve every one."""
    return next(candidate for candidate in candidates(kind) if candidate.why_not is None)
