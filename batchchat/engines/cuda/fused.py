"""Norms and gated layers by one kernel each, in the place of a module's own code."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from batchchat.engines.cuda import layers

Forward = Callable[[torch.Tensor], torch.Tensor]


class FusedNorm:
    """A root-mean-square norm in one of `layers.FORMS`; what `plain` does for numbers of another type."""

    def __init__(self, weight: torch.Tensor, epsilon: float, form: int, plain: Forward):
        self.weight = weight
        self.epsilon = epsilon
        self.form = form
        self._plain = plain

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype != self.weight.dtype:
            return self._plain(x)
        return layers.rms_norm(x, self.weight, self.epsilon, self.form)

    def after(self, x: torch.Tensor, added: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm of `x`, to which `added` is added first, and that sum."""
        if added is None:
            return layers.rms_norm(x, self.weight, self.epsilon, self.form), x
        return layers.add_rms_norm(added, x, self.weight, self.epsilon, self.form)


class FusedGate:
    """A layer `down(act(gate(x)) * up(x))`, whose `act` is SiLU, or GELU in its tanh form."""

    def __init__(self, gate: nn.Linear, up: nn.Linear, down: nn.Linear, gelu: bool):
        self.gate = gate
        self.up = up
        self.down = down
        self.gelu = gelu

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.down(layers.gated(self.gate(x), self.up(x), self.gelu))
        return out
