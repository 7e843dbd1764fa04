"""A decoder of the common form as one table of operations, run without Python in between.

What it computes, bit for bit, is what the model's own modules compute with the kernels and packed weights of `packing`.
Only the order of calls is kept; whether it is right is tried when the table is made (see `lowering`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from batchchat.engines.continuous.acceleration import acceleration
from batchchat.engines.continuous.attention import attend
from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.batch import Pass
from batchchat.engines.continuous.kv_cache import KVCache
from batchchat.engines.continuous.pools import Pool
from batchchat.engines.cpu.decoder import Decoder, Gated
from batchchat.engines.cpu.kernels import abi, loop
from batchchat.engines.cpu.products import Product
from batchchat.engines.cpu.quantized import PreparedRows
from batchchat.engines.cpu.table import Layout, Result, Table, Weights

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
        self._layouts: dict[int, Layout] = {}
        self._weights: dict[Product, Weights] = {}
        self._prepared: dict[int, PreparedRows] = {}
        self._capacity = 0
        self._buffers: dict[str, torch.Tensor] = {}
        self._plan = np.zeros((0, 6), dtype=np.int64)
        self._bases = np.zeros((len(decoder.layers), _MOST_POOLS, 2), dtype=np.int64)
        self._based_on: list[tuple[Pool, int]] = []
        self._rotations = self._rotated(torch.arange(1))

    def serves(self, cache: object) -> bool:
        return isinstance(cache, KVCache)

    def weights(self) -> Iterator[torch.Tensor]:
        return iter(())  # packed

    def forward(self, work: Pass, cache: KVCache) -> torch.Tensor:
        layout = self._layout(work.size)
        buffer = self._buffers
        embedded = self._decoder.embed(work.input_ids)[0]
        torch.mul(embedded, self._decoder.embed_times, out=buffer["hidden"][: work.size])
        self._rotate(work.position_ids[0])
        self._learn(cache, work.size)
        if work.num_tokens < work.size:
            buffer["attended"][work.num_tokens : work.size] = 0  # padding, of which nothing may come that is not finite
        if not work.long_spans:
            rows, pools = work.plan
            self._plan[: len(rows)] = rows
            self._base(pools)
            layout.table[layout.planned, abi.BLOCK] = len(rows)
        self._run(layout, work)
        return buffer["normed"][: work.size]

    def _run(self, layout: Layout, work: Pass) -> None:
        """The table from its beginning to its end, but for what is computed beside it: attention where it has other
        operations for many tokens of a prompt, and modules."""
        begun, called = 0, iter(layout.called)
        for number, layer in enumerate(self._decoder.layers):
            if work.long_spans:
                keeping, attending = map(int, layout.planned[2 * number : 2 * number + 2])
                loop.run(layout.table, begun, keeping)
                self._attend(work, number, layer.spec)
                begun = attending + 1
            if not isinstance(layer.second, Gated):
                calling = next(called)
                loop.run(layout.table, begun, calling)
                self._call(layer.second, "hidden" if layer.second_norm is None else "normed", work.size)
                begun = calling
        loop.run(layout.table, begun, len(layout.table))

    def _attend(self, work: Pass, number: int, spec: AttentionSpec) -> None:
        out = self._buffers["attended"][: work.size]
        queries, keys, values = self._views(work.size)
        out.copy_(attend(work, number, queries, keys, values, spec, acceleration(out.device))[0].flatten(1))

    def _call(self, module: nn.Module, source: str, size: int) -> None:
        found = module(self._buffers[source][None, :size])
        self._buffers["result"][:size] = (found[0] if isinstance(found, tuple) else found)[0]

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
            for name, found in self._rotated(positions).items():
                self._buffers[name][: len(positions)] = found
            return
        if any(most > len(table) for table in self._rotations.values()):
            self._rotations = self._rotated(torch.arange(-(-most // _POSITIONS) * _POSITIONS))
        for name, table in self._rotations.items():
            torch.index_select(table, 0, positions, out=self._buffers[name][: len(positions)])

    def _rotated(self, positions: torch.Tensor) -> dict[str, torch.Tensor]:
        """What each of the decoder's rotary embeddings gives for positions, by the names of buffers."""
        like = torch.empty(1, 1, 0, dtype=self._decoder.dtype)
        return {
            f"{name} {number}": part[0].contiguous()
            for number, turn in enumerate(self._decoder.turns)
            for name, part in zip(("cosines", "sines"), turn(like, positions[None]), strict=True)
        }

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
        queries, keys, values = heads.sizes
        widths = {
            "hidden": self._decoder.hidden,
            "normed": self._decoder.hidden,
            "joined": queries + keys + values,
            "normed queries": queries,
            "normed keys": keys,
            "queries": queries,
            "keys": keys,
            "values": values,
            "attended": heads.queries * heads.value_dim,
            "result": self._decoder.hidden,
            "normed result": self._decoder.hidden,
        }
        for inner in {layer.second.inner for layer in self._decoder.layers if isinstance(layer.second, Gated)}:
            widths |= {f"both {inner}": 2 * inner, f"gated {inner}": inner}
        self._layouts.clear()
        self._prepared.clear()
        dtype, tables = self._decoder.dtype, self._rotations
        self._buffers = {name: torch.zeros(capacity, width, dtype=dtype) for name, width in widths.items()}
        self._buffers |= {name: table.new_zeros(capacity, table.shape[1]) for name, table in tables.items()}
        self._plan = np.zeros((capacity, 6), dtype=np.int64)
        self._capacity = capacity

    def _lay_out(self, size: int) -> Layout:
        table = Table(self._buffers, size, self._decoder, self._plan.ctypes.data, self._weights, self._prepared)
        added: Result | None = None
        times = 1.0
        for number, layer in enumerate(self._decoder.layers):
            normed = table.norm(layer.norm, added, times)
            times = layer.times
            joined = table.product(normed, layer.joined, "joined")
            table.rotate(layer, joined)
            table.free(joined)
            table.write_kv(self._bases[number].ctypes.data)
            table.attend(layer.spec, self._bases[number].ctypes.data)
            added = table.norm_behind(layer.norm_behind, table.product("attended", layer.out, "result"))
            normed = table.norm(layer.second_norm, added, times)
            second = layer.second
            found = table.gated(second, normed) if isinstance(second, Gated) else table.call()
            added = table.norm_behind(layer.second_norm_behind, found)
        table.norm(self._decoder.norm, added, times)
        return table.layout()
