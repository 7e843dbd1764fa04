"""Products whose sums cancel out: nothing is left of them but rounding, which shows in what order they were summed."""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

Product = Callable[[torch.Tensor], torch.Tensor]
"""`[1, rows, width]` to `[1, rows, outputs]`."""


def cancelling(
    width: int, outputs: int, rows: int, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight `[outputs, width]`, and rows `[1, rows, width]` whose products with it are zero but for rounding."""
    generator = torch.Generator().manual_seed(width)
    half = torch.randn(outputs, width // 2, generator=generator)
    order = torch.randperm(width // 2, generator=generator)
    weight = torch.cat((half, -half[:, order], torch.zeros(outputs, width % 2)), dim=1)
    start = torch.randn(rows, width // 2, generator=generator)
    numbers = torch.cat((start, start[:, order], torch.zeros(rows, width % 2)), dim=1)
    return weight.to(device, dtype), numbers.to(device, dtype)[None]


def same_at_any_size(product: Product, rows: torch.Tensor, sizes: Collection[int]) -> bool:
    """Whether a product gives the first rows the same bits among as many rows as there are, and in all these sizes."""
    whole = product(rows)
    return all(torch.equal(product(rows[:, :size]), whole[:, :size]) for size in sizes)


def same_at_any_place(product: Product, rows: torch.Tensor, size: int) -> bool:
    """Whether a product of `size` rows gives a row the same bits at other places, among other rows."""
    own = rows[:, :size]
    whole = product(own)
    moved = all(
        torch.equal(product(own.roll(shift, 1)), whole.roll(shift, 1)) for shift in {1, size // 3, size // 2, size - 1}
    )
    half = size // 2
    alone = torch.cat((own[:, :half], torch.ones_like(own[:, half:])), dim=1)
    return moved and torch.equal(product(alone)[:, :half], whole[:, :half])
