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
from batchchat.engines.continuous.form import Turn
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
class Gated:
    """A layer `down(act(gate(x)) * up(x))`."""

    both: Joined
    gelu: bool
    down: nn.Linear

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gates, ups = self.both(x).chunk(2, dim=-1)
        out: torch.Tensor = self.down(layers.gated(gates, ups, self.gelu))
        return out


@dataclass(frozen=True)
class Layer:
    """The parts of a decoder layer, in the order in which they are computed."""

    norm: FusedNorm | None
    joined: Joined
    """Queries, keys and values of a token, side by side."""
    query_norm: FusedNorm | None
    """Of all heads of a token as one."""
    key_norm: FusedNorm | None
    head_norms: HeadNorms | None
    turn: int
    """Its place among the decoder's rotary embeddings; behind the last one where it turns nothing."""
    spec: AttentionSpec
    out: nn.Linear
    norm_behind: FusedNorm | None
    second_norm: FusedNorm | None
    second: Gated | nn.Module
    """A module, such as a mixture of experts, computes by itself."""
    second_norm_behind: FusedNorm | None
    times: float
    """What results are multiplied by before they are added to the hidden states."""

    def result(self, found: torch.Tensor, norm: FusedNorm | None) -> torch.Tensor:
        """What is added to the hidden states, of what a part of the layer gives."""
        found = found if norm is None else norm.normed(found)
        return found if self.times == 1 else found * self.times


@dataclass(frozen=True)
class Decoder:
    """A model in parts. All layers have the same heads."""

    embed: nn.Module
    embed_times: float
    turns: tuple[Turn, ...]
    layers: tuple[Layer, ...]
    norm: FusedNorm
    heads: int
    kv_heads: int
    dim: int


def _after(
    norm: FusedNorm | None, hidden: torch.Tensor, added: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states with something added, normed where there is a norm, and as they are."""
    if norm is not None:
        return norm.after(hidden, added)
    hidden = hidden if added is None else hidden + added
    return hidden, hidden


class Program:
    """Computes passes of any size through a decoder."""

    def __init__(self, decoder: Decoder):
        self._decoder = decoder

    def serves(self, cache: object) -> bool:
        return isinstance(cache, PagedCache)

    def weights(self) -> Iterator[torch.Tensor]:
        """Those of all products, `[outputs, width]`."""
        for layer in self._decoder.layers:
            yield from (layer.joined.weight, layer.out.weight)
            if isinstance(layer.second, Gated):
                yield from (layer.second.both.weight, layer.second.down.weight)
            else:
                yield from (linear.weight for linear in layer.second.modules() if isinstance(linear, nn.Linear))

    def forward(self, work: PagedPass, cache: PagedCache) -> torch.Tensor:
        decoder = self._decoder
        hidden = decoder.embed(work.input_ids)[0]
        if decoder.embed_times != 1:
            hidden = hidden * decoder.embed_times
        angles = [self._angles(turn(hidden[None, :1], work.position_ids)) for turn in decoder.turns]
        if any(layer.turn == len(angles) for layer in decoder.layers):
            angles.append([torch.ones_like(angles[0][0]), torch.zeros_like(angles[0][1])])
        added = None
        for number, layer in enumerate(decoder.layers):
            normed, hidden = _after(layer.norm, hidden, added)
            attended = self._attended(work, cache, number, layer, normed, *angles[layer.turn])
            normed, hidden = _after(layer.second_norm, hidden, layer.result(layer.out(attended), layer.norm_behind))
            found = layer.second(normed[None])
            found = found[0] if isinstance(found, tuple) else found
            added = layer.result(found[0], layer.second_norm_behind)
        return decoder.norm.after(hidden, added)[0]

    def _angles(self, found: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Cosines and sines `[tokens, turned // 2]`, of which those of the other half are the same."""
        return [part[0, :, : part.shape[2] // 2] for part in found]

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
        decoder, counts = self._decoder, (self._decoder.heads, self._decoder.kv_heads, self._decoder.kv_heads)
        parts = layer.joined(normed).split([count * decoder.dim for count in counts], dim=-1)
        norms = (layer.query_norm, layer.key_norm, None)
        query, key, value = (
            (part if norm is None else norm.normed(part)).view(len(normed), -1, decoder.dim)
            for part, norm in zip(parts, norms, strict=True)
        )
        attention, keys, values = cache.layer(number, query, key, value, layer.spec)
        turned = cast(LayerAttention, attention).rotate_and_write(
            query, key, value, cosines, sines, keys, values, work.slots, norms=layer.head_norms
        )
        return cache.read(work, number, turned, layer.spec).flatten(1)
