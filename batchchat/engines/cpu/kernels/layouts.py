"""How weights lie in memory, in the order in which kernels read them."""

from __future__ import annotations

import torch
from torch.nn import functional

CHUNK = 16
"""Numbers of a row that lie side by side where it is multiplied, with those of its block's other rows behind them."""
PADDED = 64
"""Rows that are multiplied with quantized weights are filled up to a multiple of so many numbers with zeros."""

ROWS = 16
"""Rows of a tile. A tile of sums has as many outputs."""
TILE_BYTES = 64
"""Of a tile's row."""
DEPTH = 32
"""Numbers of 16 bits that it holds."""


def pack_panels(weight: torch.Tensor, panel: int) -> torch.Tensor:
    """A weight `[outputs, size]` as `widening` reads it: panel after panel, and of each the numbers of all its outputs
    one after the other; in bfloat16 those of each output in pairs. Both sizes are filled up with zeros."""
    outputs, size = weight.shape
    filled = functional.pad(weight, (0, -size % CHUNK, 0, -outputs % panel)).contiguous()
    pair = 2 if weight.dtype == torch.bfloat16 else 1
    whole = filled.view(torch.int32) if pair == 2 else filled  # pairs are moved four times as fast as one number
    laid = whole.view(-1, panel, whole.shape[1]).transpose(1, 2).contiguous()
    return laid.view(weight.dtype).view(-1, whole.shape[1], panel, pair)


def fit_tiles(outputs: int, size: int, dtype: torch.dtype) -> bool:
    return dtype == torch.bfloat16 and outputs % (2 * ROWS) == 0 and size % DEPTH == 0


def pack_tiles(weight: torch.Tensor, out: torch.Tensor) -> None:
    """Lay a weight `[outputs, size]` out as `out`, which has as many numbers: 16 outputs after 16, and of these tile
    after tile, each with pairs of numbers side by side."""
    blocks, chunks = weight.shape[0] // ROWS, weight.shape[1] // DEPTH
    tiled = weight.view(blocks, ROWS, chunks, ROWS, 2).permute(0, 2, 3, 1, 4)
    out.view(tiled.shape).copy_(tiled)


def filled_up(rows: torch.Tensor) -> torch.Tensor:
    """Rows `[count, size]` in memory that goes on to a multiple of a tile's: whole tiles are read, and what is in their
    other rows goes nowhere."""
    count = len(rows)
    if count % ROWS == 0:
        return rows
    whole = rows.new_empty(count + -count % ROWS, rows.shape[1])
    whole[:count] = rows
    return whole
