"""Parts of a model that may be computed by one kernel: what they are, and whether two ways give the same numbers."""

from __future__ import annotations

import inspect
from typing import NamedTuple

import torch
from torch import nn

_TOLERANCE = {torch.float32: 1e-5, torch.float16: 5e-3, torch.bfloat16: 0.04}
"""Largest difference that rounding may explain, in standard deviations."""


class Norm(NamedTuple):
    """A root-mean-square norm."""

    weight: torch.Tensor
    epsilon: float


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


def is_close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    spread = max(float(wanted.float().std()), 1e-6)
    return float((found.float() - wanted.float()).abs().max()) <= _TOLERANCE[wanted.dtype] * spread
