"""Norms, gated layers and rotary embeddings of a model computed by one kernel each, where that gives the numbers of
their own code: each is tried on a sample first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.trials import Forward, NormForward, is_close, norm_of, sample, takes_one_tensor
from batchchat.engines.cpu.kernels import ops
from batchchat.engines.cpu.kernels.code import FORMS

_ROTARY = "apply_rotary_pos_emb"
"""What the modules of transformers' models call the function that turns queries and keys."""


class FusedNorm(NormForward):
    """In one of `code`'s forms."""

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        return ops.rms_norm(x, self.weight, self.epsilon, self.form)


@torch.inference_mode()
def fused_norm(module: nn.Module) -> FusedNorm | None:
    """A forward for a root-mean-square norm, or None where the module is none or computes something else."""
    norm = norm_of(module)
    if norm is None or norm.weight.dtype not in ops.STORED:
        return None
    numbers = sample(3, len(norm.weight), norm.weight.dtype)
    wanted = module.forward(numbers)
    forms = [FusedNorm(*norm, form, module.forward) for form in FORMS]
    best = min(forms, key=lambda form: float((form(numbers) - wanted).abs().sum()))
    return best if is_close(best(numbers), wanted) else None


class FusedGate:
    """A layer `down(silu(gate(x)) * up(x))`; `both` is the product of `gate` and `up` joined."""

    def __init__(self, both: Forward, down: nn.Linear):
        self.both = both
        self.down = down

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        down: torch.Tensor = self.down(ops.gated(self.both(x)))
        return down


@torch.inference_mode()
def fused_gate(module: Any, product: Forward) -> FusedGate | None:
    """A forward for a gated layer, or None where it computes something else. `product` is that of `gate_proj` and
    `up_proj` joined."""
    if type(getattr(module, "down_proj", None)) is not nn.Linear or module.gate_proj.weight.dtype not in ops.STORED:
        return None
    if not takes_one_tensor(module):
        return None
    fused = FusedGate(product, module.down_proj)
    numbers = sample(3, module.gate_proj.in_features, module.gate_proj.weight.dtype)
    wanted = module(numbers)
    return fused if isinstance(wanted, torch.Tensor) and is_close(fused(numbers), wanted) else None


class FusedRotary:
    """Stands for the function that turns queries and keys in a module of transformers: what `plain` is, and faster for
    the shapes of packed passes."""

    def __init__(self, plain: Callable[..., Any]):
        self.plain = plain

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *others: Any, **named: Any
    ) -> Any:
        dtypes = {q.dtype, k.dtype, cos.dtype, sin.dtype}
        if (
            not torch.is_inference_mode_enabled()
            or others
            or named
            or q.device.type != "cpu"
            or len(dtypes) != 1
            or q.dtype not in ops.STORED
            or cos.shape != (1, q.shape[2], q.shape[3])
            or len(q) != 1
        ):
            return self.plain(q, k, cos, sin, *others, **named)
        return ops.rotate(q, k, cos, sin)

    @torch.inference_mode()
    def is_right(self) -> bool:
        """Whether both ways give the same numbers."""
        for dtype in ops.STORED:
            q, k = (sample(5, heads * 8, dtype).view(1, 5, heads, 8).transpose(1, 2) for heads in (4, 2))
            half = torch.linspace(0, 3, 20).view(1, 5, 4)
            angles = torch.cat((half, half), dim=-1)
            cosines, sines = angles.cos().to(dtype), angles.sin().to(dtype)
            try:
                wanted = self.plain(q, k, cosines, sines)
            except (TypeError, ValueError, RuntimeError):  # it turns something else
                return False
            found = self(q, k, cosines, sines)
            if len(wanted) != 2 or not all(is_close(*pair) for pair in zip(found, wanted, strict=True)):
                return False
        return True


def fuse_rotary(model: nn.Module) -> Callable[[], None]:
    """Turn queries and keys by a kernel in the modules that define a model. Returns what undoes it."""
    replaced: list[tuple[ModuleType, FusedRotary]] = []
    for module in _modules(model):
        plain = getattr(module, _ROTARY, None)
        if callable(plain) and not isinstance(plain, FusedRotary):
            fused = FusedRotary(plain)
            if fused.is_right():
                setattr(module, _ROTARY, fused)
                replaced.append((module, fused))

    def undo() -> None:
        for module, fused in replaced:
            if getattr(module, _ROTARY) is fused:
                setattr(module, _ROTARY, fused.plain)

    return undo


def _modules(model: nn.Module) -> Iterator[ModuleType]:
    for name in dict.fromkeys(type(part).__module__ for part in model.modules()):
        if name.startswith("transformers.models."):
            yield sys.modules[name]
