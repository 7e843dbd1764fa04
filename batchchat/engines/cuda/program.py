"""A decoder of the common form (`continuous.form`) in few launches: products of one input are one, norms take the
residual's addition along, and queries and keys are normed, turned and written at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged.batch import PagedPass
from batchchat.engines.continuous.paged.paged_cache import PagedCache
from batchchat.engines.cuda import layers
from batchchat.engines.cuda.backend import HeadNorms, LayerAttention
from batchchat.engines.cuda.fused import FusedNorm


@dataclass(frozen=True)
class Joined:
    """Linear layers of one input as one product, whose outputs lie side by side."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    @classmethod
    def of(cls, linears: Sequence[nn.Linear]) -> Joined:
        """The layers keep their parameters, which become parts of the joined ones: nothing is held twice."""
        weight = torch.cat([linear.weight.data for linear in linears])
        sizes = [linear.out_features for linear in linears]
        for linear, part in zip(linears, weight.split(sizes), strict=True):
            linear.weight.data = part
        biases = [linear.bias.data for linear in linears if linear.bias is not None]
        return cls(weight, torch.cat(biases) if biases else None)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Layer:
    """The parts of a decoder layer, in the order in which they are computed."""

    norm: FusedNorm
    joined: Joined
    """Queries, keys and values of a token, side by side."""
    head_norms: HeadNorms | None
    spec: AttentionSpec
    out: nn.Linear
    second_norm: FusedNorm
    gate_up: Joined
    gelu: bool
    down: nn.Linear


@dataclass(frozen=True)
class Decoder:
    """A model in parts. All layers have the same sizes."""

    embed: nn.Module
    rotary: nn.Module
    """From a tensor and positions `[1, tokens]` to cosines and sines `[1, tokens, dim]`, whose halves are alike."""
    layers: tuple[Layer, ...]
    norm: FusedNorm
    heads: int
    kv_heads: int
    dim: int


class Program:
    """Computes passes of any size through a decoder."""

    def __init__(self, decoder: Decoder):
        self._decoder = decoder

    def serves(self, cache: object) -> bool:
        return isinstance(cache, PagedCache)

    def weights(self) -> Iterator[torch.Tensor]:
        """Those of all products, `[outputs, width]`."""
        for layer in self._decoder.layers:
            yield from (layer.joined.weight, layer.out.weight, layer.gate_up.weight, layer.down.weight)

    def forward(self, work: PagedPass, cache: PagedCache) -> torch.Tensor:
        decoder = self._decoder
        hidden = decoder.embed(work.input_ids)[0]
        angles = decoder.rotary(hidden[None, :1], work.position_ids)
        cosines, sines = (part[0, :, : decoder.dim // 2] for part in angles)
        added = None
        for number, layer in enumerate(decoder.layers):
            normed, hidden = layer.norm.after(hidden, added)
            attended = self._attended(work, cache, number, layer, normed, cosines, sines)
            normed, hidden = layer.second_norm.after(hidden, layer.out(attended))
            gates, ups = layer.gate_up(normed).chunk(2, dim=-1)
            added = layer.down(layers.gated(gates, ups, layer.gelu))
        return decoder.norm.after(hidden, added)[0]

    def _attended(
        self,
        work: PagedPass,
        cache: PagedCache,
        number: int,
        layer: Layer,
        normed: torch.Tensor,
        cosines: torch.Tensor,
        sines: torch.Tensor,
    ) -> torch.Tensor:
        """`[tokens, heads * dim]`"""
        decoder = self._decoder
        joined = layer.joined(normed).view(len(normed), -1, decoder.dim)
        query, key, value = joined.split([decoder.heads, decoder.kv_heads, decoder.kv_heads], dim=1)
        attention, keys, values = cache.layer(number, query, key, value, layer.spec)
        turned = cast(LayerAttention, attention).rotate_and_write(
            query, key, value, cosines, sines, keys, values, work.slots, norms=layer.head_norms
        )
        return cache.read(work, number, turned, layer.spec).flatten(1)
