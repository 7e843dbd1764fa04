"""Norms, gated layers and rotary embeddings of a model computed by one kernel each, where that gives the numbers of
their own code: each is tried on a sample first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from batchchat.engines.continuous.form import ROTARY
from batchchat.engines.continuous.trials import NormForward, is_close, norm_of, sample, takes_one_tensor
from batchchat.engines.cpu.kernels import ops
from batchchat.engines.cpu.kernels.abi import FORMS, GELU, SILU
from batchchat.engines.cpu.kernels.ops import Gate
from batchchat.engines.cpu.products import AnyProduct
from batchchat.engines.cpu.quantized import QuantizedProduct
from batchchat.models.quantized import is_quantized


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
    """A layer `down(act(gate(x)) * up(x))`; `both` is the product of `gate` and `up` joined."""

    def __init__(self, both: AnyProduct | QuantizedProduct, gate: Gate, down: nn.Linear):
        self.both = both
        self.gate = gate
        self.down = down

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        down: torch.Tensor = self.down(ops.gated(self.both(x), self.gate))
        return down


@torch.inference_mode()
def fused_gate(
    module: Any, product: AnyProduct | QuantizedProduct, quantized: torch.dtype | None = None
) -> FusedGate | None:
    """A forward for a gated layer, or None where it computes something else. `product` is that of the gate and of what
    it is for, joined; where both are quantized, `quantized` is the type of the numbers that they multiply."""
    down: Any = getattr(module, "down_proj", None)
    if type(down) is not nn.Linear and (quantized is None or not is_quantized(down)):
        return None
    dtype = quantized or down.weight.dtype
    if dtype not in ops.STORED or not takes_one_tensor(module):
        return None
    numbers = sample(3, down.out_features, dtype)
    wanted = module(numbers)
    if not isinstance(wanted, torch.Tensor):
        return None
    ways = [FusedGate(product, Gate(form), down) for form in (SILU, GELU)]
    best = min(ways, key=lambda way: float((way(numbers) - wanted).abs().sum()))
    return best if is_close(best(numbers), wanted) else None


def joined_gates(model: nn.Module) -> dict[nn.Module, AnyProduct]:
    """Products of gates and of what they are for that are one layer of the model (Phi-3), by the module that has it."""
    both = {module: getattr(module, "gate_up_proj", None) for module in model.modules()}
    return {
        module: vars(linear)["forward"]
        for module, linear in both.items()
        if type(linear) is nn.Linear and "forward" in vars(linear)
    }


class _Tables(NamedTuple):
    """The cosines and sines that a function takes."""

    size: int
    """Numbers, for a head of 8."""
    are_halved: bool
    """Each is for one number of either half of a head."""
    dtype: torch.dtype
    turned: torch.dtype
    """Of queries and keys."""


_SIZES = (8, False), (4, True), (4, False)
_KINDS = [
    _Tables(size, are_halved, tables, turned)
    for size, are_halved in _SIZES
    for turned in ops.STORED
    for tables in dict.fromkeys((turned, torch.float32))
]


class FusedRotary:
    """Stands for the function that turns queries and keys in a module of transformers: what `plain` is, and faster for
    the shapes of packed passes. Each kind of tables is tried when it is first met."""

    def __init__(self, plain: Callable[..., Any]):
        self.plain = plain
        self._serves = cache(self._is_right)

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *others: Any, **named: Any
    ) -> Any:
        kind = None
        if torch.is_inference_mode_enabled() and not others and not named and q.device.type == "cpu":
            kind = self._kind(q, k, cos, sin)
        return self.plain(q, k, cos, sin, *others, **named) if kind is None else _rotate(q, k, cos, sin, kind)

    def _kind(self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> _Tables | None:
        """The kind of the tables of a packed pass, if it is served; of those that turn half of a head, or are for
        either half, the right one."""
        if (q.dtype, cos.dtype) != (k.dtype, sin.dtype) or (q.dim(), cos.dim()) != (4, 3):
            return None
        _, _, tokens, dim = q.shape
        size = cos.shape[2]
        if len(q) != 1 or cos.shape[:2] != (1, tokens) or not 0 < size <= dim:
            return None
        kinds = [_Tables(8 if size == dim else 4, halved, cos.dtype, q.dtype) for halved in (2 * size == dim, False)]
        return next((kind for kind in kinds if kind in _KINDS and self._serves(kind)), None)

    def is_right(self) -> bool:
        """Whether there are tables with which both ways give the same numbers."""
        return any(map(self._serves, _KINDS))

    @torch.inference_mode()
    def _is_right(self, kind: _Tables) -> bool:
        q, k = (sample(5, heads * 8, kind.turned).view(1, 5, heads, 8).transpose(1, 2) for heads in (4, 2))
        half = torch.linspace(0, 3, 5 * 4).view(1, 5, 4)[..., : kind.size if kind.are_halved else kind.size // 2]
        angles = half if kind.are_halved else torch.cat((half, half), dim=-1)
        cosines, sines = angles.cos().to(kind.dtype), angles.sin().to(kind.dtype)
        try:
            wanted = self.plain(q, k, cosines, sines)
        except (TypeError, ValueError, RuntimeError):  # it turns something else
            return False
        found = _rotate(q, k, cosines, sines, kind)
        return len(wanted) == 2 and all(is_close(*pair) for pair in zip(found, wanted, strict=True))


def _rotate(
    q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, kind: _Tables
) -> tuple[torch.Tensor, torch.Tensor]:
    if kind.are_halved:
        cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)
    return ops.rotate(q, k, cos, sin)


def fuse_rotary(model: nn.Module) -> Callable[[], None]:
    """Turn queries and keys by a kernel in the modules that define a model. Returns what undoes it."""
    replaced: list[tuple[ModuleType, FusedRotary]] = []
    for module in _modules(model):
        plain = getattr(module, ROTARY, None)
        if callable(plain) and not isinstance(plain, FusedRotary):
            fused = FusedRotary(plain)
            if fused.is_right():
                setattr(module, ROTARY, fused)
                replaced.append((module, fused))

    def undo() -> None:
        for module, fused in replaced:
            if getattr(module, ROTARY) is fused:
                setattr(module, ROTARY, fused.plain)

    return undo


def _modules(model: nn.Module) -> Iterator[ModuleType]:
    for name in dict.fromkeys(type(part).__module__ for part in model.modules()):
        if name.startswith("transformers.models."):
            yield sys.modules[name]
