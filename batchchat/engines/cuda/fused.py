"""Norms and gated layers by one kernel each, in the place of a module's own code."""

from __future__ import annotations

from collections.abc import Sequence

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
    """A layer `down(act(gate(x)) * up(x))`, whose `act` is SiLU, or GELU in its tanh form; `both` are `gate` and `up`,
    or one layer that is both."""

    def __init__(self, both: Sequence[nn.Linear], down: nn.Linear, gelu: bool):
        self.both = both
        self.down = down
        self.gelu = gelu

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        gates, ups = [linear(x) for linear in self.both] if len(self.both) > 1 else self.both[0](x).chunk(2, dim=-1)
        out: torch.Tensor = self.down(layers.gated(gates, ups, self.gelu))
        return out
