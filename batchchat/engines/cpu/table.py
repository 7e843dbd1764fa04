"""The parts of a decoder, and the table of operations that computes them for passes of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from batchchat.engines.continuous.attention_spec import Scoring
from batchchat.engines.cpu.fusing import FusedNorm
from batchchat.engines.cpu.kernels import loop, ops, tiles
from batchchat.engines.cpu.packing import AnyProduct, Product, TiledProduct


@dataclass(frozen=True)
class Heads:
    """How many heads a layer has, and their sizes."""

    queries: int
    keys: int
    key_dim: int
    value_dim: int


@dataclass(frozen=True)
class Layer:
    """The parts of a decoder layer, in the order in which they are computed."""

    norm: FusedNorm
    joined: AnyProduct
    """Queries, keys and values of a token, side by side."""
    query_norm: FusedNorm | None
    key_norm: FusedNorm | None
    scoring: Scoring
    out: AnyProduct
    second_norm: FusedNorm
    gate_up: AnyProduct
    down: AnyProduct


@dataclass(frozen=True)
class Decoder:
    """A model in parts. All layers have the same sizes."""

    embed: torch.nn.Module
    rotary: torch.nn.Module
    """From a tensor and positions `[1, tokens]` to cosines and sines `[1, tokens, key_dim]`."""
    layers: tuple[Layer, ...]
    norm: FusedNorm
    heads: Heads
    hidden: int
    inner: int


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
    """The table for passes of one size, and where in it each layer keeps and attends, one behind the other."""

    table: np.ndarray
    planned: np.ndarray
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
        self._weights = weights
        self._inputs: dict[str, loop.Handle] = {}

    def norm(self, norm: FusedNorm, added: Result | None) -> None:
        """Norm the hidden states, after adding a product's result to them, which is freed."""
        hidden = self._buffers["hidden"]
        kernel = ops.norm_kernel(norm.weight.dtype, norm.form)
        place = self._pointer("hidden"), hidden.stride(0), norm.weight.data_ptr(), self._pointer("normed")
        block = [self._size, hidden.shape[1], *place, ops.bits(norm.epsilon), 0, 1, hidden.stride(0)]
        self._kernel(kernel, block, self._size * hidden.shape[1])
        if added is not None:
            self._want(added, 2 + 7, 0)
            self.free(added)

    def product(self, source: str, product: AnyProduct, target: str) -> Result:
        """A product of the rows of one buffer, for another one."""
        if isinstance(product, TiledProduct):
            outputs, size = product.packed.shape
            bias = 0 if product.bias is None else product.bias.data_ptr()
            block = [self._size, size, outputs, self._pointer(source), product.packed.data_ptr()]
            block += [self._pointer(target), bias, tiles.CONFIG.ctypes.data]
            self._kernel(ops.tiled_kernel(), block, ops.WORTH_SHARING)
            return target
        if source not in self._inputs:
            self._inputs[source] = loop.Handle(self._buffers[source][: self._size])
        if product not in self._weights:
            self._weights[product] = Weights(product)
        weights = self._weights[product]
        self._rows.append([loop.PRODUCT, self._inputs[source].address, weights.packed.address, weights.bias])
        return len(self._rows) - 1

    def turn(self, layer: Layer, joined: Result) -> None:
        """Rotate queries and keys, normed before where the layer does, and copy values."""
        heads, dtype = self._heads, self._decoder.norm.weight.dtype
        dim, first_key = heads.key_dim, heads.queries * heads.key_dim
        first_value = first_key + heads.keys * dim
        width = first_value + heads.keys * heads.value_dim
        block = [self._size, dim // 2, self._pointer("cosines"), self._pointer("sines"), dim]
        wanted = [(2 + 16, first_value)]
        for name, count, norm, first in (
            ("queries", heads.queries, layer.query_norm, 0),
            ("keys", heads.keys, layer.key_norm, first_key),
        ):
            if norm is None:
                wanted.append((2 + len(block) + 1, first))
                block += [count, 0, width, dim, self._pointer(name)]
            else:
                self._norm_heads(name, count, norm, joined, first, width)
                block += [count, self._pointer(f"normed {name}"), count * dim, dim, self._pointer(name)]
        block += [heads.keys, 0, width, heads.value_dim, self._pointer("values"), heads.value_dim]
        self._kernel(ops.rotary_kernel(dtype), block, self._size * width)
        for word, first in wanted:
            self._want(joined, word, first * dtype.itemsize)

    def _norm_heads(self, name: str, count: int, norm: FusedNorm, joined: Result, first: int, width: int) -> None:
        """Norm `count` heads of each token, which begin at number `first` of the `width` joined ones."""
        dim, rows = self._heads.key_dim, self._size * count
        block = [rows, dim, 0, dim, norm.weight.data_ptr(), self._pointer(f"normed {name}")]
        block += [ops.bits(norm.epsilon), 0, count, width]
        self._kernel(ops.norm_kernel(norm.weight.dtype, norm.form), block, rows * dim)
        self._want(joined, 2 + 2, first * norm.weight.dtype.itemsize)

    def keep(self, bases: int) -> None:
        """Write keys and values into the slots of all rows of the plan; how many it has is filled in for each pass."""
        heads = self._heads
        block = [0, heads.keys]
        for name, size in (("keys", heads.key_dim), ("values", heads.value_dim)):
            block += [self._pointer(name), heads.keys * size, size]
        block += [self._plan, bases, heads.key_dim, heads.value_dim]
        self._planned.append(len(self._rows))
        kernel = ops.keeping_kernel(self._decoder.norm.weight.dtype)
        self._kernel(kernel, block, self._size * heads.keys * heads.key_dim)

    def attend(self, scoring: Scoring, bases: int) -> None:
        """Attention of all rows of the plan."""
        heads = self._heads
        block = [0, heads.keys, self._pointer("queries"), heads.queries * heads.key_dim, heads.key_dim]
        block += [self._pointer("attended"), heads.queries * heads.value_dim, ops.bits(scoring.scaling)]
        block += [ops.NO_WINDOW if scoring.window is None else scoring.window, self._plan, bases]
        block += [0 if scoring.sinks is None else scoring.sinks.data_ptr(), heads.queries // heads.keys]
        block += [heads.key_dim, heads.value_dim]
        self._planned.append(len(self._rows))
        kernel = ops.attention_kernel(heads.key_dim, heads.value_dim, self._decoder.norm.weight.dtype)
        self._kernel(kernel, block, ops.WORTH_SHARING)

    def gate(self, both: Result) -> None:
        inner = self._decoder.inner
        block = [self._size, inner, 0, self._pointer("gated")]
        self._kernel(ops.gate_kernel(self._decoder.norm.weight.dtype), block, 2 * self._size * inner)
        self._want(both, 2 + 2, 0)
        self.free(both)

    def free(self, result: Result) -> None:
        """Give back the memory of a result that no later operation reads."""
        if isinstance(result, str):
            return
        self._freed.append((len(self._rows), result))
        self._rows.append([loop.FREE, 0])

    def layout(self) -> Layout:
        table = np.zeros((len(self._rows), loop.WORDS), dtype=np.int64)
        for number, row in enumerate(self._rows):
            table[number, : len(row)] = row
        place, words = table.ctypes.data, loop.WORDS
        pairs = dict.fromkeys({product for product, *_ in self._wanted}, loop.PAIRS)
        for product, user, word, beyond in self._wanted:
            table[product, pairs[product] : pairs[product] + 2] = place + 8 * (user * words + word), beyond
            pairs[product] += 2
        for user, product in self._freed:
            table[user, 1] = place + 8 * (product * words + loop.RESULT)
        return Layout(table, np.array(self._planned), [self._buffers, self._inputs])

    def _kernel(self, kernel: Any, block: list[int], numbers: int) -> None:
        shared = numbers >= ops.WORTH_SHARING
        self._rows.append([loop.SHARED if shared else loop.ALONE, kernel.address, *block])

    def _want(self, result: Result, word: int, beyond: int) -> None:
        """The last operation wants a result's address in one of its words."""
        if isinstance(result, str):
            self._rows[-1][word] = self._pointer(result) + beyond
        else:
            self._wanted.append((result, len(self._rows) - 1, word, beyond))

    def _pointer(self, name: str) -> int:
        return self._buffers[name].data_ptr()
