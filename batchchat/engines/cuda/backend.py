"""What a layer asks of attention over pages, who can serve it, and why not who cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from batchchat.engines.continuous.paged.contract import PagedAttention
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


class HeadNorms(NamedTuple):
    """Root-mean-square norms of a head's queries and keys, by weights `[key_dim]`, in a form of `layers.FORMS`."""

    query: torch.Tensor
    key: torch.Tensor
    epsilon: float
    form: int


class LayerAttention(PagedAttention, Protocol):
    """Attention over pages that serves some kinds of layers, and turns queries and keys on the way."""

    def unsupported(self, kind: LayerKind) -> str | None:
        """Why a layer cannot be served here, as a sentence; None where it can."""

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
        norms: HeadNorms | None = None,
    ) -> torch.Tensor:
        """What `write` does with keys turned by their positions; returns the queries `[tokens, heads, key_dim]` turned.

        `cosines` and `sines` `[tokens, rotary_dim // 2]`: the first `rotary_dim` numbers of a head are turned, number
        `i` with number `i + rotary_dim // 2`, or with `interleaved` `2 * i` with `2 * i + 1`. Both are normed first
        where there are `norms`.
        """


class Candidate(NamedTuple):
    """A backend and why it cannot serve a layer; None where it can."""

    name: str
    backend: LayerAttention
    why_not: str | None


_BACKENDS: dict[str, LayerAttention] = {"triton": paged, "torch varlen": varlen, "gathered": gathered}


def candidates(kind: LayerKind) -> Iterator[Candidate]:
    """All backends, the ones that should be the fastest first. `gathered`, the last one, can serve every layer."""
    for name, backend in _BACKENDS.items():
        yield Candidate(name, backend, backend.unsupported(kind))


def choose(kind: LayerKind) -> Candidate:
    """The first backend that can serve a layer: `gathered` can serve every one."""
    return next(candidate for candidate in candidates(kind) if candidate.why_not is None)
