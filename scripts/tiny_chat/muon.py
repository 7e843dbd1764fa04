"""Muon for a model of many small matrices: those of one shape are computed together.

The arithmetic is that of `torch.optim.Muon`, which takes one matrix after the other, and that took a third of a step.
Source: https://kellerjordan.github.io/posts/muon
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import groupby
from typing import Any

import torch
from torch import nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Momentum, whose steps are made orthogonal and as large as those of AdamW; weight decay is decoupled."""

    def __init__(
        self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        ordered = sorted(matrices, key=lambda matrix: tuple(matrix.shape))
        super().__init__(ordered, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        assert closure is None, "the loss is computed outside"
        for group in self.param_groups:
            for shape, same in groupby(group["params"], key=lambda matrix: tuple(matrix.shape)):
                matrices = list(same)
                gradients = torch.stack([matrix.grad for matrix in matrices])
                state = self.state[matrices[0]]  # of all matrices of this shape
                if not state:
                    state["momentum"] = torch.zeros_like(gradients)
                state["momentum"].lerp_(gradients, 1 - group["momentum"])
                steps = orthogonal(gradients.lerp_(state["momentum"], group["momentum"]))
                rate = 0.2 * math.sqrt(max(shape)) * group["lr"]
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=rate)


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """`[matrices, rows, columns]` with all singular values near 1, in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    upright = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if upright else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if upright else x
