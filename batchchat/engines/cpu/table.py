"""The table of operations that computes a decoder for passes of one size."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.cpu.decoder import Decoder, Gated, Layer, Listed
from batchchat.engines.cpu.fusing import FusedNorm
from batchchat.engines.cpu.kernels import abi, loop, ops
from batchchat.engines.cpu.products import KernelProduct, Product
from batchchat.engines.cpu.quantized import PreparedRows, QuantizedProduct


class Weights:
    """A product's tensors as C functions take them."""

    def __init__(self, product: Product):
        self.packed = loop.Handle(product.packed)
        self._bias = None if product.bias is None else loop.Handle(product.bias)
        self._word = np.array([0 if self._bias is None else self._bias.address], dtype=np.int64)

    @property
    def bias(self) -> int:
        """Address of the bias's handle, 0 if there is none."""
        return 0 if self._bias is None else self._word.ctypes.data


@dataclass
class Layout:
    """The table for passes of one size."""

    table: np.ndarray
    planned: np.ndarray
    """Where in it each layer keeps and attends, one behind the other."""
    called: list[int]
    """Where each layer's second part is computed by its module, of the layers that have one."""
    held: list[Any]
    """What the table points to."""


Result = int | str


class Table:
    """Collects operations over the first `size` rows of the buffers. The result of a product is named by the buffer
    that it is written to, or, where the product makes memory of its own, by the product's row."""

    def __init__(
        self,
        buffers: dict[str, torch.Tensor],
        size: int,
        decoder: Decoder,
        plan: int,
        weights: dict[Product, Weights],
        prepared: dict[int, PreparedRows],
    ):
        self._buffers = buffers
        self._size = size
        self._decoder = decoder
        self._heads = decoder.heads
        self._plan = plan
        self._rows: list[list[int]] = []
        self._wanted: list[tuple[int, int, int, int]] = []
        """A product's row, and the row and word that want its address, with the bytes beyond it."""
        self._freed: list[tuple[int, int]] = []
        self._planned: list[int] = []
        self._called: list[int] = []
        self._weights = weights
        self._prepared = prepared
        self._inputs: dict[str, loop.Handle] = {}

    def norm(self, norm: FusedNorm | None, added: Result | None, times: float) -> str:
        """Add a product's result, `times` so much, to the hidden states, and norm these. Returns where that lies: it is
        the hidden states themselves where there is no norm."""
        rows, hidden = self._size, self._buffers["hidden"].shape[1]
        if norm is not None:
            self._norm(norm, rows, "hidden", "normed", times)
            if added is not None:
                self._want(added, abi.NORM, "added")
        elif added is not None:
            words = {"rows": rows, "size": hidden, "source": self._pointer("hidden"), "added": 0}
            block = abi.block(abi.ADD, **words, times=ops.bits(times))
            self._kernel(ops.add_kernel(self._decoder.dtype), block, rows * hidden)
            self._want(added, abi.ADD, "added")
        if added is not None:
            self.free(added)
        return "hidden" if norm is None else "normed"

    def norm_behind(self, norm: FusedNorm | None, result: Result) -> Result:
        """Norm a result, if there is a norm for it."""
        if norm is None:
            return result
        self._norm(norm, self._size, None, "normed result")
        self._want(result, abi.NORM, "source")
        self.free(result)
        return "normed result"

    def _norm(
        self,
        norm: FusedNorm,
        rows: int,
        source: str | None,
        target: str,
        times: float = 1.0,
        group: int = 1,
        group_stride: int = 0,
    ) -> None:
        """Norm rows of a buffer, or of a result that is yet to be named."""
        size = len(norm.weight)
        block = abi.block(
            abi.NORM,
            rows=rows,
            size=size,
            source=0 if source is None else self._pointer(source),
            stride=size,
            weight=norm.weight.data_ptr(),
            target=self._pointer(target),
            epsilon=ops.bits(norm.epsilon),
            added=0,
            times=ops.bits(times),
            group=group,
            group_stride=group_stride or size,
        )
        self._kernel(ops.norm_kernel(norm.weight.dtype, norm.form), block, rows * size)

    def product(self, source: str, product: Listed, target: str) -> Result:
        """A product of the rows of one buffer, for another one."""
        if isinstance(product, QuantizedProduct):
            rows = self._buffers[source]
            if product.size not in self._prepared:
                self._prepared[product.size] = PreparedRows(len(rows), product.size)
            places = rows.data_ptr(), rows.stride(0), self._pointer(target)
            for operation in product.operations(self._size, rows.dtype, *places, self._prepared[product.size]):
                self._kernel(*operation)
            return target
        if isinstance(product, KernelProduct):
            kernel, block = product.operation(self._size, self._pointer(source), self._pointer(target))
            self._kernel(kernel, block, ops.WORTH_SHARING)
            return target
        if source not in self._inputs:
            self._inputs[source] = loop.Handle(self._buffers[source][: self._size])
        if product not in self._weights:
            self._weights[product] = Weights(product)
        weights = self._weights[product]
        self._rows.append([abi.PRODUCT, self._inputs[source].address, weights.packed.address, weights.bias])
        return len(self._rows) - 1

    def rotate(self, layer: Layer, joined: Result) -> None:
        """Rotate queries and keys, normed before where the layer does, and copy values."""
        heads, dtype = self._heads, self._decoder.dtype
        first_key, first_value, width = accumulate(heads.sizes)
        words: dict[str, int] = {}
        wanted = {"value": first_value}
        for name, buffer, count, norm, first in (
            ("query", "queries", heads.queries, layer.query_norm, 0),
            ("key", "keys", heads.keys, layer.key_norm, first_key),
        ):
            source, stride = 0, width
            if norm is None:
                wanted[name] = first
            else:
                self._norm_heads(buffer, count, norm, joined, first, width)
                source, stride = self._pointer(f"normed {buffer}"), count * heads.key_dim
            words |= {f"{name}_heads": count, name: source, f"{name}_token": stride, f"{name}_head": heads.key_dim}
            words[f"{name}_target"] = self._pointer(buffer)
        turned, tables = self._turned(layer.turn)
        block = abi.block(
            abi.ROTARY,
            tokens=self._size,
            half=turned // 2,
            dim=heads.key_dim,
            cosines=self._pointer(f"cosines {layer.turn}") if turned else 0,
            sines=self._pointer(f"sines {layer.turn}") if turned else 0,
            table_stride=turned,
            **words,
            value_heads=heads.keys,
            value=0,
            value_token=width,
            value_head=heads.value_dim,
            value_target=self._pointer("values"),
            value_dim=heads.value_dim,
        )
        self._kernel(ops.rotary_kernel(dtype, tables), block, self._size * width)
        for name, first in wanted.items():
            self._want(joined, abi.ROTARY, name, first * dtype.itemsize)

    def _turned(self, turn: int | None) -> tuple[int, torch.dtype]:
        """How many numbers of a head are turned, and by tables in which type; none where a layer turns nothing."""
        if turn is None:
            return 0, self._decoder.dtype
        table = self._buffers[f"cosines {turn}"]
        return table.shape[1], table.dtype

    def _norm_heads(self, name: str, count: int, norm: FusedNorm, joined: Result, first: int, width: int) -> None:
        """Norm `count` heads of each token, each or all as one, which begin at number `first` of the `width` joined
        ones."""
        group = count * self._heads.key_dim // len(norm.weight)
        self._norm(norm, self._size * group, None, f"normed {name}", group=group, group_stride=width)
        self._want(joined, abi.NORM, "source", first * norm.weight.dtype.itemsize)

    def write_kv(self, bases: int) -> None:
        """Write keys and values into the slots of all rows of the plan; how many it has is filled in for each pass."""
        heads = self._heads
        block = abi.block(
            abi.WRITE_KV,
            rows=0,
            heads=heads.keys,
            key=self._pointer("keys"),
            key_token=heads.keys * heads.key_dim,
            key_head=heads.key_dim,
            value=self._pointer("values"),
            value_token=heads.keys * heads.value_dim,
            value_head=heads.value_dim,
            plan=self._plan,
            bases=bases,
            key_dim=heads.key_dim,
            value_dim=heads.value_dim,
        )
        self._planned.append(len(self._rows))
        kernel = ops.writing_kernel(self._decoder.dtype)
        self._kernel(kernel, block, self._size * heads.keys * heads.key_dim)

    def attend(self, spec: AttentionSpec, bases: int) -> None:
        """Attention of all rows of the plan."""
        heads = self._heads
        block = abi.block(
            abi.ATTENTION,
            rows=0,
            heads=heads.keys,
            query=self._pointer("queries"),
            query_token=heads.queries * heads.key_dim,
            query_head=heads.key_dim,
            out=self._pointer("attended"),
            out_token=heads.queries * heads.value_dim,
            scaling=ops.bits(spec.scaling),
            softcap=0 if spec.softcap is None else ops.bits(spec.softcap),
            window=ops.NO_WINDOW if spec.window is None else spec.window,
            plan=self._plan,
            bases=bases,
            sinks=0 if spec.sinks is None else spec.sinks.data_ptr(),
            shared=heads.queries // heads.keys,
            key_dim=heads.key_dim,
            value_dim=heads.value_dim,
        )
        self._planned.append(len(self._rows))
        kernel = ops.attention_kernel(heads.key_dim, heads.value_dim, self._decoder.dtype)
        self._kernel(kernel, block, ops.WORTH_SHARING)

    def gated(self, gated: Gated, source: str) -> Result:
        """A gated layer of the rows of a buffer."""
        inner, gate = gated.inner, gated.gate
        both = self.product(source, gated.both, f"both {inner}")
        block = abi.block(
            abi.GATE,
            rows=self._size,
            size=inner,
            source=0,
            target=self._pointer(f"gated {inner}"),
            limit=ops.bits(gate.limit),
            alpha=ops.bits(gate.alpha),
        )
        self._kernel(ops.gate_kernel(self._decoder.dtype, gate.form), block, 2 * self._size * inner)
        self._want(both, abi.GATE, "source")
        self.free(both)
        return self.product(f"gated {inner}", gated.down, "result")

    def call(self) -> Result:
        """Whoever runs the table has a module compute here, and puts what it gives into the buffer of results."""
        self._called.append(len(self._rows))
        return "result"

    def free(self, result: Result) -> None:
        """Give back the memory of a result that no later operation reads."""
        if isinstance(result, str):
            return
        self._freed.append((len(self._rows), result))
        self._rows.append([abi.FREE, 0])

    def layout(self) -> Layout:
        table = np.zeros((len(self._rows), abi.WORDS), dtype=np.int64)
        for number, row in enumerate(self._rows):
            table[number, : len(row)] = row
        place, words = table.ctypes.data, abi.WORDS
        pairs = dict.fromkeys({product for product, *_ in self._wanted}, abi.PAIRS)
        for product, user, word, beyond in self._wanted:
            table[product, pairs[product] : pairs[product] + 2] = place + 8 * (user * words + word), beyond
            pairs[product] += 2
        for user, product in self._freed:
            table[user, 1] = place + 8 * (product * words + abi.RESULT)
        return Layout(table, np.array(self._planned), self._called, [self._buffers, self._inputs])

    def _kernel(self, kernel: Any, block: list[int], numbers: int) -> None:
        shared = numbers >= ops.WORTH_SHARING
        self._rows.append([abi.SHARED if shared else abi.ALONE, kernel.address, 0, *block])

    def _want(self, result: Result, layout: np.dtype, name: str, beyond: int = 0) -> None:
        """The last operation wants a result's address in a word of its block."""
        word = abi.BLOCK + abi.word(layout, name)
        if isinstance(result, str):
            self._rows[-1][word] = self._pointer(result) + beyond
        else:
            self._wanted.append((result, len(self._rows) - 1, word, beyond))

    def _pointer(self, name: str) -> int:
        return self._buffers[name].data_ptr()
