"""Norms and gated layers by one kernel each, in the place of a module's own code."""

from __future__ import annotations

import torch
from torch import nn

from batchchat.engines.continuous.trials import NormForward
from batchchat.engines.cuda import layers


class FusedNorm(NormForward):
    """In one of `layers.FORMS`."""

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        return layers.rms_norm(x, self.weight, self.epsilon, self.form)

    def after(self, x: torch.Tensor, added: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The norm of `x`, to which `added` is added first, and that sum."""
        if added is None:
            return self.normed(x), x
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
