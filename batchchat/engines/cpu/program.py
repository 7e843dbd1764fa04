"""A decoder of the common form as one table of operations, run without Python in between.

What it computes, bit for bit, is what the model's own modules compute with the kernels and packed weights of `packing`.
Only the order of calls is kept; whether it is right is tried when the table is made (see `lowering`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from batchchat.engines.continuous.acceleration import acceleration
from batchchat.engines.continuous.attention import attend
from batchchat.engines.continuous.batch import Pass
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.pools import Pool
from batchchat.engines.cpu.kernels import loop
from batchchat.engines.cpu.products import Product
from batchchat.engines.cpu.table import Decoder, Layout, Result, Table, Weights

_MOST_POOLS = 64
_ROUNDED = 16
"""Products may read rows up to a multiple of this."""
_POSITIONS = 1024
"""Positions whose cosines and sines are computed at a time."""
_KEPT_POSITIONS = 1 << 17
"""Positions whose cosines and sines are kept; those of others are computed for each pass."""


class Program:
    """Computes passes of any size through a decoder. Its buffers are its own: one pass at a time."""

    def __init__(self, decoder: Decoder):
        self._decoder = decoder
        self._dtype = decoder.norm.weight.dtype
        self._layouts: dict[int, Layout] = {}
        self._weights: dict[Product, Weights] = {}
        self._capacity = 0
        self._buffers: dict[str, torch.Tensor] = {}
        self._plan = np.zeros((0, 6), dtype=np.int64)
        self._bases = np.zeros((len(decoder.layers), _MOST_POOLS, 2), dtype=np.int64)
        self._based_on: list[tuple[Pool, int]] = []
        self._rotations = [torch.empty(0, decoder.heads.key_dim, dtype=self._dtype) for _ in range(2)]

    def serves(self, cache: object) -> bool:
        return isinstance(cache, KVCache)

    def weights(self) -> Iterator[torch.Tensor]:
        return iter(())  # packed

    def forward(self, work: Pass, cache: KVCache) -> torch.Tensor:
        layout = self._layout(work.size)
        buffer = self._buffers
        buffer["hidden"][: work.size] = self._decoder.embed(work.input_ids)[0]
        self._rotate(work.position_ids[0])
        self._learn(cache, work.size)
        if work.num_tokens < work.size:
            buffer["attended"][work.num_tokens : work.size] = 0  # padding, of which nothing may come that is not finite
        if not work.long_spans:
            rows, pools = work.plan
            self._plan[: len(rows)] = rows
            self._base(pools)
            layout.table[layout.planned, loop.BLOCK] = len(rows)
            loop.run(layout.table, 0, len(layout.table))
        else:
            self._run_by_layers(layout, work)
        return buffer["normed"][: work.size]

    def _run_by_layers(self, layout: Layout, work: Pass) -> None:
        """The same, with attention by its own function: it has other operations for many tokens of a prompt."""
        begun = 0
        out = self._buffers["attended"][: work.size]
        for number, layer in enumerate(self._decoder.layers):
            keeping, attending = map(int, layout.planned[2 * number : 2 * number + 2])
            loop.run(layout.table, begun, keeping)
            queries, keys, values = self._views(work.size)
            found = attend(work, number, queries, keys, values, layer.spec, acceleration(out.device))
            out.copy_(found[0].flatten(1))
            begun = attending + 1
        loop.run(layout.table, begun, len(layout.table))

    def _views(self, size: int) -> Iterator[torch.Tensor]:
        """Queries, keys and values as `[1, heads, tokens, dim]`."""
        heads = self._decoder.heads
        for name, count in (("queries", heads.queries), ("keys", heads.keys), ("values", heads.keys)):
            yield self._buffers[name][:size].view(1, size, count, -1).transpose(1, 2)

    def _learn(self, cache: KVCache, size: int) -> None:
        if len(cache.shapes) < len(self._decoder.layers):
            _, keys, values = self._views(size)
            for number in range(len(self._decoder.layers)):
                cache.learn(number, keys, values)

    def _rotate(self, positions: torch.Tensor) -> None:
        """Cosines and sines of these positions."""
        most = int(positions.max()) + 1
        if most > _KEPT_POSITIONS:
            for name, found in zip(("cosines", "sines"), self._rotated(positions), strict=True):
                self._buffers[name][: len(positions)] = found
            return
        if most > len(self._rotations[0]):
            most = -(-most // _POSITIONS) * _POSITIONS
            self._rotations = self._rotated(torch.arange(most))
        for name, table in zip(("cosines", "sines"), self._rotations, strict=True):
            torch.index_select(table, 0, positions, out=self._buffers[name][: len(positions)])

    def _rotated(self, positions: torch.Tensor) -> list[torch.Tensor]:
        found = self._decoder.rotary(self._buffers["hidden"][None, :1], positions[None])
        return [part[0].to(self._dtype).contiguous() for part in found]

    def _base(self, pools: list[Pool]) -> None:
        """Where the pools' keys and values lie, unless they lie where they lay."""
        now = [(pool, pool.version) for pool in pools]
        if now == self._based_on:
            return
        assert len(pools) <= _MOST_POOLS
        self._based_on = now
        for place, pool in enumerate(pools):
            for number in range(len(self._decoder.layers)):
                self._bases[number, place] = pool.keys[number].data_ptr(), pool.values[number].data_ptr()

    def _layout(self, size: int) -> Layout:
        if size > self._capacity:
            self._allocate(_ROUNDED * -(-max(size, 2 * self._capacity) // _ROUNDED))
        if size not in self._layouts:
            self._layouts[size] = self._lay_out(size)
        return self._layouts[size]

    def _allocate(self, capacity: int) -> None:
        """New buffers; all tables point to the old ones and are made again."""
        heads = self._decoder.heads
        widths = {
            "hidden": self._decoder.hidden,
            "normed": self._decoder.hidden,
            "joined": (heads.queries + heads.keys) * heads.key_dim + heads.keys * heads.value_dim,
            "normed queries": heads.queries * heads.key_dim,
            "normed keys": heads.keys * heads.key_dim,
            "queries": heads.queries * heads.key_dim,
            "keys": heads.keys * heads.key_dim,
            "values": heads.keys * heads.value_dim,
            "attended": heads.queries * heads.value_dim,
            "result": self._decoder.hidden,
            "both": 2 * self._decoder.inner,
            "gated": self._decoder.inner,
            "cosines": heads.key_dim,
            "sines": heads.key_dim,
        }
        self._layouts.clear()
        self._buffers = {name: torch.zeros(capacity, width, dtype=self._dtype) for name, width in widths.items()}
        self._plan = np.zeros((capacity, 6), dtype=np.int64)
        self._capacity = capacity

    def _lay_out(self, size: int) -> Layout:
        table = Table(self._buffers, size, self._decoder, self._plan.ctypes.data, self._weights)
        added: Result | None = None
        for number, layer in enumerate(self._decoder.layers):
            table.norm(layer.norm, added)
            joined = table.product("normed", layer.joined, "joined")
            table.rotate(layer, joined)
            table.free(joined)
            table.write_kv(self._bases[number].ctypes.data)
            table.attend(layer.spec, self._bases[number].ctypes.data)
            added = table.product("attended", layer.out, "result")
            table.norm(layer.second_norm, added)
            both = table.product("normed", layer.gate_up, "both")
            table.gate(both)
            added = table.product("gated", layer.down, "result")
        table.norm(self._decoder.norm, added)
        return table.layout()
