"""Parts of a model that may be computed by one kernel: what they are, and whether two ways give the same numbers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 0.04}
"""Largest difference that rounding may explain, in standard deviations."""


Forward = Callable[[torch.Tensor], torch.Tensor]


class Norm(NamedTuple):
    """A root-mean-square norm."""

    weight: torch.Tensor
    epsilon: float


class NormForward:
    """What computes a root-mean-square norm, in one of a device's forms, in the place of its own code (`plain`), which
    is left to numbers of another type."""

    def __init__(self, weight: torch.Tensor, epsilon: float, form: int, plain: Forward):
        self.weight = weight
        self.epsilon = epsilon
        self.form = form
        self._plain = plain

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._plain(x) if x.dtype != self.weight.dtype else self.normed(x)

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        """The norm of `x` `[..., size]`, by the device's kernel."""
        raise NotImplementedError


def norm_of(module: nn.Module) -> Norm | None:
    """What a module is made from that seems to be a root-mean-square norm of one tensor; None of another."""
    parameters = dict(module.named_parameters())
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if "RMSNorm" not in type(module).__name__ or list(parameters) != ["weight"] or not isinstance(epsilon, float):
        return None
    weight = parameters["weight"].detach()
    return Norm(weight, epsilon) if takes_one_tensor(module) and weight.dim() == 1 else None


def takes_one_tensor(module: nn.Module) -> bool:
    """Whether a module is called with nothing else, such as a gate (which may well be left out when it is tried)."""
    return len(inspect.signature(module.forward).parameters) == 1


def sample(rows: int, size: int, dtype: torch.dtype, device: torch.device | None = None) -> torch.Tensor:
    """Numbers of both signs, `[1, rows, size]`."""
    return torch.linspace(-20, 30, rows * size).sin().mul_(2).view(1, rows, size).to(device, dtype)


def takes_half_tables(rotate: Callable[..., tuple[torch.Tensor, ...]]) -> bool:
    """Whether a function turns queries and keys `[1, heads, tokens, dim]` by cosines and sines `[1, tokens, dim // 2]`,
    each of which is for one number of either half of a head."""
    numbers = sample(3, 4 * 8, torch.float32).view(1, 3, 4, 8).transpose(1, 2)
    angles = torch.linspace(0, 3, 12).view(1, 3, 4)
    cosines, sines = angles.cos(), angles.sin()
    try:
        found, _ = rotate(numbers, numbers, cosines, sines)
    except Exception:  # it wants tables of another size
        return False
    one, other = numbers.chunk(2, dim=-1)
    return is_close(found, torch.cat((one * cosines - other * sines, other * cosines + one * sines), dim=-1))


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, in standard deviations of what is wanted."""
    spread = max(float(wanted.float().std()), 1e-6)
    return float((found.float() - wanted.float()).abs().max()) / spread


def is_close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    return distance(found, wanted) <= TOLERANCE[wanted.dtype]
