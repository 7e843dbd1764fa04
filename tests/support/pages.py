"""Rows in pages of scattered blocks, everything that is not theirs being NaN, and attention over them in float64."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from batchchat.engines.continuous.paged.contract import Seen
from batchchat.engines.continuous.paged.pages import new_pages
from batchchat.engines.cuda import gathered, paged
from batchchat.engines.cuda.kernels import why_not

CPU = torch.device("cpu")

needs_interpreter = pytest.mark.skipif(why_not(CPU) is not None, reason=str(why_not(CPU)))
TRITON = pytest.param(paged, marks=needs_interpreter, id="triton")
BACKENDS = [TRITON, pytest.param(gathered, id="gathered")]


@dataclass(frozen=True)
class Rows:
    """Keys and values of some rows: dense, `[length, kv_heads, dim]` each, and in pages."""

    dense: list[tuple[torch.Tensor, torch.Tensor]]
    keys: torch.Tensor
    values: torch.Tensor
    tables: torch.Tensor
    lengths: torch.Tensor

    @property
    def seen(self) -> Seen:
        return Seen(self.keys, self.values, self.tables, self.lengths)

    def at(self, *places: int) -> Rows:
        """Some of the rows, in another order."""
        chosen = list(places)
        return Rows(
            [self.dense[place] for place in chosen],
            self.keys,
            self.values,
            self.tables[chosen],
            self.lengths[chosen],
        )


def rows_of(
    lengths: list[int],
    kv_heads: int = 2,
    dims: tuple[int, int] = (64, 64),
    block_size: int = 16,
    dtype: torch.dtype = torch.float32,
    spare: int = 1,
    seed: int = 0,
) -> Rows:
    """Random rows; each table has `spare` entries more than the longest row needs, of blocks that do not exist."""
    random = torch.Generator().manual_seed(seed)
    needed = [-(-length // block_size) for length in lengths]
    keys, values = (new_pages(sum(needed) + 2, block_size, kv_heads, dim, dtype, CPU).fill_(torch.nan) for dim in dims)
    blocks = torch.randperm(len(keys), generator=random).to(torch.int32)
    tables = torch.full((len(lengths), max(needed) + spare), 1 << 30, dtype=torch.int32)
    dense, taken = [], 0
    for row, (length, count) in enumerate(zip(lengths, needed, strict=True)):
        own = blocks[taken : taken + count]
        tables[row, :count] = own
        taken += count
        pair = []
        for pages, dim in zip((keys, values), dims, strict=True):
            numbers = torch.randn(length, kv_heads, dim, generator=random).to(dtype)
            places = torch.arange(length)
            pages[own[places // block_size].long(), places % block_size] = numbers
            pair.append(numbers)
        dense.append((pair[0], pair[1]))
    return Rows(dense, keys, values, tables, torch.tensor(lengths, dtype=torch.int32))


def plain(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """The last tokens of one row, `query` `[count, heads, dim]`, query by query and head by head in float64."""
    count, heads, _ = query.shape
    out = torch.zeros(count, heads, values.shape[2], dtype=torch.float64)
    group = heads // keys.shape[1]
    for number in range(count):
        end = len(keys) - count + number + 1
        begin = 0 if window is None else max(0, end - window)
        if end <= 0:
            continue
        for head in range(heads):
            seen = slice(begin, end)
            scores = keys[seen, head // group].double() @ query[number, head].double() * scaling
            if softcap is not None:
                scores = softcap * torch.tanh(scores / softcap)
            if sinks is not None:
                scores = torch.cat((scores, sinks[head : head + 1].double()))
            weights = torch.softmax(scores, 0)[: end - begin]
            out[number, head] = weights @ values[seen, head // group].double()
    return out
