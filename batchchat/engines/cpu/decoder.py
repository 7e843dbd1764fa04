"""The parts of a decoder of the common form (`continuous.form`), as a program computes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.form import Turn
from batchchat.engines.cpu.fusing import FusedNorm
from batchchat.engines.cpu.kernels.ops import Gate
from batchchat.engines.cpu.products import KernelProduct, Product
from batchchat.engines.cpu.quantized import QuantizedProduct

Listed = KernelProduct | Product | QuantizedProduct
"""A product that a table can hold."""


@dataclass(frozen=True)
class Heads:
    """How many heads a layer has, and their sizes."""

    queries: int
    keys: int
    key_dim: int
    value_dim: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Queries, keys and values of a token, in numbers."""
        return self.queries * self.key_dim, self.keys * self.key_dim, self.keys * self.value_dim


@dataclass(frozen=True)
class Gated:
    """`down` of what a gate lets through of `inner` numbers; `both` is the product for the gate and for these."""

    both: Listed
    gate: Gate
    inner: int
    down: Listed


@dataclass(frozen=True)
class Layer:
    """The parts of a decoder layer, in the order in which they are computed."""

    norm: FusedNorm | None
    joined: Listed
    """Queries, keys and values of a token, side by side."""
    query_norm: FusedNorm | None
    key_norm: FusedNorm | None
    turn: int | None
    """Its place among the decoder's rotary embeddings."""
    spec: AttentionSpec
    out: Listed
    norm_behind: FusedNorm | None
    second_norm: FusedNorm | None
    second: Gated | nn.Module
    """A module, such as a mixture of experts, computes by itself."""
    second_norm_behind: FusedNorm | None
    times: float
    """What results are multiplied by before they are added to the hidden states."""


@dataclass(frozen=True)
class Decoder:
    """A model in parts. All layers have the same heads."""

    embed: nn.Module
    embed_times: float
    turns: tuple[Turn, ...]
    layers: tuple[Layer, ...]
    norm: FusedNorm
    heads: Heads

    @property
    def hidden(self) -> int:
        return len(self.norm.weight)

    @property
    def dtype(self) -> torch.dtype:
        return self.norm.weight.dtype
