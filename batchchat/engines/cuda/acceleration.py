"""The `Acceleration` of the continuous engine for models that lie on a CUDA device: norms and gated layers by one
kernel each, or all of the model by a program, where that gives the numbers of its own code. Attention over pages has
its own choice (`backend`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from batchchat.engines.continuous.trials import Forward, is_close, norm_of, sample, takes_one_tensor
from batchchat.engines.cuda import layers
from batchchat.engines.cuda.fused import FusedGate, FusedNorm
from batchchat.engines.cuda.kernels import why_not
from batchchat.engines.cuda.lowering import lower
from batchchat.engines.cuda.paged import DTYPES
from batchchat.engines.facts import ProductFacts

Way = TypeVar("Way", bound=Callable[[torch.Tensor], torch.Tensor])


def prepare(model: nn.Module, batch_invariant: bool = False, *_: Any) -> Callable[[], None]:
    """Compute a model's norms and gated layers by kernels, and all of it by a program, which is the same in either
    mode. Returns what undoes it."""
    changed: list[nn.Module] = []
    for module in model.modules():
        if "forward" in vars(module):  # which moves its input from another device
            continue
        forward = fused_norm(module) or fused_gate(module)
        if forward is not None:
            module.forward = forward
            changed.append(module)
    forget = lower(model) if changed else lambda: None

    def undo() -> None:
        forget()
        for module in changed:
            del module.forward  # the instance's; the class's is plain again

    return undo


def products(model: Any) -> tuple[ProductFacts, ...]:
    """Torch's own."""
    return ()


def has_kernels() -> bool:
    return torch.cuda.is_available() and why_not(torch.device("cuda", torch.cuda.current_device())) is None


def attends(*_: Any) -> bool:
    """Slots are attended over by torch's operators here."""
    return False


def attend(*_: Any) -> None:
    raise AssertionError("it attends over no slots")


def products_are_invariant(model: Any, sizes: Collection[int]) -> bool:
    """Torch's own products, which are tried on the device like any."""
    return False


def fused_norm(module: nn.Module) -> FusedNorm | None:
    """A forward for a root-mean-square norm, or None where the module is none or computes something else."""
    norm = norm_of(module)
    if norm is None or len(norm.weight) > layers.LARGEST or not _is_served(norm.weight):
        return None
    forms = [FusedNorm(*norm, form, module.forward) for form in layers.FORMS]
    return _right(module.forward, forms, sample(3, len(norm.weight), norm.weight.dtype, norm.weight.device))


def fused_gate(module: Any) -> FusedGate | None:
    """A forward for a layer `down(act(gate(x)) * up(x))`, or None where it computes something else."""
    names = ("gate_up_proj",) if hasattr(module, "gate_up_proj") else ("gate_proj", "up_proj")
    found: list[Any] = [getattr(module, name, None) for name in (*names, "down_proj")]
    *both, down = found
    if not all(isinstance(linear, nn.Linear) for linear in found):
        return None
    if not takes_one_tensor(module) or not _is_served(down.weight):
        return None
    ways = [FusedGate(both, down, gelu) for gelu in (False, True)]
    return _right(module.forward, ways, sample(3, both[0].in_features, down.weight.dtype, down.weight.device))


def _is_served(weight: torch.Tensor) -> bool:
    return weight.dtype in DTYPES and why_not(weight.device) is None


@torch.inference_mode()
def _right(plain: Forward, ways: Sequence[Way], numbers: torch.Tensor) -> Way | None:
    """The way that is nearest to the plain one, where rounding explains the difference. One that raises is none."""
    try:
        wanted = plain(numbers)
        found = [(way, way(numbers)) for way in ways]
    except torch.OutOfMemoryError:
        raise
    except Exception:  # a compiler, or a layer that wants something else, may raise anything
        return None
    if not isinstance(wanted, torch.Tensor):
        return None
    way, nearest = min(found, key=lambda pair: float((pair[1] - wanted).abs().sum()))
    return way if is_close(nearest, wanted) else None
