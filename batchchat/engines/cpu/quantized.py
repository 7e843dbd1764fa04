"""Products with weights that bitsandbytes quantized, by kernels that read them where they lie.

The numbers are those of bitsandbytes' own arithmetic, row by row. Of LLM.int8 that means: a row's large numbers are
multiplied as they are, and those that other rows have in the same columns are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from batchchat.engines.cpu.kernels import abi, ops
from batchchat.engines.cpu.kernels.abi import BFLOAT16, FLOAT16, FLOAT32
from batchchat.engines.cpu.kernels.layouts import PADDED, ROWS, TILE_BYTES, filled_up
from batchchat.engines.cpu.kernels.processor import Level, levels
from batchchat.engines.cpu.kernels.threads import Kernel
from batchchat.models.quantized import Widened

_ROUNDING = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16, torch.float16: FLOAT16}
_NESTED_BLOCK = 256
"""Scales of 4-bit blocks that have one scale, where those are quantized too: bitsandbytes knows no other number."""


class NotServedError(Exception):
    """A layer that has no kernel: the message says why."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A layer's quantized weight. `words`: what a kernel is told of it (`abi.PART`) but for its place in a row."""

    bits: int
    size: int
    outputs: int
    words: dict[str, int]
    rounding: int | None
    """Of 4 bits: what numbers are rounded to that are multiplied; None is what they come as."""
    block: int
    threshold: float
    """Of 8 bits: size from which on a row's number is multiplied as it is."""
    held: tuple[torch.Tensor, ...]
    """What the words point to."""

    @property
    def kind(self) -> tuple[Any, ...]:
        """Weights of one kind can be parts of one product."""
        return self.bits, self.size, self.rounding, self.block, self.threshold

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.held)


def weight_of(module: Any) -> Weight:
    """Raises NotServedError, with the reason, for a layer that is kept in a way that kernels do not read."""
    if not isinstance(vars(module).get("forward"), Widened | None):
        raise NotServedError("something else computes it already")
    return _WEIGHTS[type(module).__name__](module)


def _of_8_bits(module: Any) -> Weight:
    state = module.state
    numbers = module.weight.CB if module.weight.CB is not None else state.CB
    scales = module.weight.SCB if module.weight.CB is not None else state.SCB
    if numbers is None or numbers.dtype != torch.int8 or scales.dtype != torch.float32:
        raise NotServedError("its weights are not in 8 bits")
    numbers, scales = _plain(numbers), _plain(scales)
    sums = numbers.sum(dim=1, dtype=torch.int32)
    bias = None if module.bias is None else module.bias.detach().float()
    words = {"scales": scales.data_ptr(), "shift": 0, "nested": 0, "code": 0, "offset": 0, "table": 0}
    return _weight(8, tuple(numbers.shape), numbers, bias, (scales, sums), words | {"sums": sums.data_ptr()},
                   threshold=state.threshold)  # fmt: skip


def _of_4_bits(module: Any) -> Weight:
    state = getattr(module.weight, "quant_state", None) or module.quant_state
    if state is None:
        raise NotServedError("its weights are not in 4 bits")
    if getattr(state, "packing_format_for_cpu", False):
        raise NotServedError("bitsandbytes has laid its weights out for itself already")
    if tuple(state.shape) != (module.out_features, module.in_features):
        raise NotServedError("its weights are quantized the other way round")
    held = [_plain(state.code).float()]
    words = {"table": held[0].data_ptr(), "nested": 0, "code": 0, "offset": 0, "sums": 0}
    scales = _plain(state.absmax)
    if state.nested:
        second = state.state2
        if second.blocksize != _NESTED_BLOCK or scales.dtype != torch.uint8:
            raise NotServedError("its scales are quantized in another way than bitsandbytes does it")
        held += [_plain(second.absmax).float(), _plain(second.code).float()]
        words |= {"nested": held[1].data_ptr(), "code": held[2].data_ptr(), "offset": ops.bits(float(state.offset))}
    else:
        scales = scales.float()
    compute = module.compute_dtype
    bias = None if module.bias is None else module.bias.detach().to(compute or module.bias.dtype).float()
    words |= {"scales": scales.data_ptr(), "shift": state.blocksize.bit_length() - 1}
    numbers = _plain(module.weight.data).view(torch.uint8)
    return _weight(4, tuple(state.shape), numbers, bias, (scales, *held), words, state.blocksize,
                   None if compute is None else _ROUNDING[compute])  # fmt: skip


_WEIGHTS = {"Linear8bitLt": _of_8_bits, "Linear4bit": _of_4_bits}


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise NotServedError("its weights do not lie in this machine's memory as they are")
    return tensor.detach()


def _weight(
    bits: int,
    shape: tuple[int, int],
    numbers: torch.Tensor,
    bias: torch.Tensor | None,
    held: tuple[torch.Tensor, ...],
    words: dict[str, int],
    block: int = 0,
    rounding: int | None = None,
    threshold: float = 0.0,
) -> Weight:
    outputs, size = shape
    if bias is None:
        bias = torch.zeros(outputs)
    words = {**words, "weight": numbers.data_ptr(), "bias": bias.data_ptr(), "outputs": outputs}
    held = (numbers, *held, bias)
    return Weight(bits, size, outputs, words, rounding, block, threshold, held)


@cache
def _preparing(dtype: torch.dtype, in_bytes: bool) -> Kernel:
    return Kernel("quantized.quantized_rows", ops.STORED[dtype], dtype.itemsize, in_bytes)


@cache
def _multiplying(dtype: torch.dtype, level: Level, rounding: int, bits: int, run: int, in_tiles: bool) -> Kernel:
    stored = ops.STORED[dtype], dtype.itemsize
    if in_tiles:
        return Kernel("byte_tiles.product", *stored, rounding) if bits == 8 else Kernel("four_bit_tiles.product", run)
    if bits == 8 and level.in_bytes:
        return Kernel("quantized.multiplied_bytes", *stored, level.registers.lanes, rounding)
    return Kernel("quantized.multiplied", *stored, level, rounding, bits, run)


class Operation(NamedTuple):
    """A kernel with its block of parameters; `numbers` says how much work it is."""

    kernel: Kernel
    block: list[int]
    numbers: int


class PreparedRows:
    """Memory for rows as they are multiplied."""

    def __init__(self, rows: int, size: int):
        rows, padded = -(-rows // ROWS) * ROWS, -(-size // PADDED) * PADDED
        self.numbers = torch.empty(rows, padded, dtype=torch.float32)
        self.scales = torch.empty(rows, dtype=torch.float32)
        self.counts = torch.empty(rows, dtype=torch.int32)
        self.columns = torch.empty(rows, size, dtype=torch.int32)


class QuantizedProduct:
    """The product with weights of one kind, whose outputs come side by side."""

    def __init__(self, weights: Sequence[Weight], level: Level | None = None):
        self.weights = tuple(weights)
        self.level = level or levels()[0]
        first = self.weights[0]
        assert all(weight.kind == first.kind for weight in self.weights)
        self.size, self.outputs = first.size, sum(weight.outputs for weight in self.weights)
        places = np.cumsum([0, *(weight.outputs for weight in self.weights[:-1])])
        blocks = [
            abi.block(abi.PART, beyond=int(place), **weight.words)
            for place, weight in zip(places, self.weights, strict=True)
        ]
        self._parts = np.array(blocks, dtype=np.int64)
        self._run = 0
        if self.level.looks_up or first.bits == 8:
            self._run = next((run for run in (64, 32) if first.block % run == 0 == first.size % run), 0)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """`rows` `[..., size]` to `[..., outputs]`."""
        flat = rows.reshape(-1, self.size)
        if rows.dtype == torch.float16:
            flat = flat.float()
        if flat.stride(1) != 1:
            flat = flat.contiguous()
        if self.level.has_tiles and self.weights[0].bits == 4:
            flat = filled_up(flat)
        out = torch.empty(*rows.shape[:-1], self.outputs, dtype=flat.dtype)
        count = rows.numel() // self.size
        if count:
            prepared = PreparedRows(count, self.size)
            for operation in self.operations(
                count, rows.dtype, flat.data_ptr(), flat.stride(0), out.data_ptr(), prepared
            ):
                operation.kernel(*operation.block, shared=operation.numbers >= ops.WORTH_SHARING)
        return out.to(rows.dtype)

    def _in_tiles(self, dtype: torch.dtype, rounding: int) -> bool:
        """Whether matrix units multiply: bytes, or 4 bits as bfloat16. Rows lie in memory that goes on to a multiple of
        a tile's then."""
        if not self.level.has_tiles:
            return False
        if self.weights[0].bits == 8:
            return self.size % TILE_BYTES == 0
        return self._run > 0 and dtype == torch.bfloat16 and rounding == BFLOAT16

    def operations(
        self, rows: int, dtype: torch.dtype, source: int, stride: int, target: int, prepared: PreparedRows
    ) -> list[Operation]:
        """What computes `rows` rows at the address `source`, `stride` numbers apart, to `target`. Those of half
        precision lie there as floats."""
        first, level = self.weights[0], self.level
        stored = torch.float32 if dtype == torch.float16 else dtype
        of_rows = _ROUNDING[dtype]
        rounding = of_rows if first.rounding is None else first.rounding
        common = {"rows": rows, "size": self.size, "padded": prepared.numbers.shape[1], "stride": stride}
        apart = {
            "scales": prepared.scales.data_ptr(),
            "counts": prepared.counts.data_ptr(),
            "columns": prepared.columns.data_ptr(),
        }
        in_tiles = self._in_tiles(stored, rounding)
        found = []
        if first.bits == 8:
            limit = first.threshold if first.threshold > 0 else float("inf")
            into = {"source": source, "target": prepared.numbers.data_ptr()}
            block = abi.block(abi.QUANTIZED_ROWS, threshold=ops.bits(limit), **common, **into, **apart)
            found.append(Operation(_preparing(stored, level.in_bytes), block, rows * self.size))
        block = abi.block(
            abi.QUANTIZED_PRODUCT,
            **common,
            **apart,
            source=prepared.numbers.data_ptr(),
            numbers=source,
            target=target,
            target_stride=self.outputs,
            parts=self._parts.ctypes.data,
            num_parts=len(self._parts),
        )
        kernel = _multiplying(stored, level, rounding, first.bits, self._run, in_tiles)
        return [*found, Operation(kernel, block, self.outputs * self.size)]
