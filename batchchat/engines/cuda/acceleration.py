"""The `Acceleration` of the continuous engine for models that lie on a CUDA device: norms and gated layers by one
kernel each, where that gives the numbers of their own code. Attention over pages has its own choice (`backend`)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.trials import is_close, norm_of, sample, takes_one_tensor
from batchchat.engines.cuda import layers
from batchchat.engines.cuda.kernels import why_not
from batchchat.engines.cuda.paged import DTYPES

Forward = Callable[[torch.Tensor], torch.Tensor]


def prepare(model: nn.Module) -> Callable[[], None]:
    """Compute a model's norms and gated layers by kernels. Returns what undoes it."""
    changed: list[nn.Module] = []
    for module in model.modules():
        if "forward" in vars(module):  # which moves its input from another device
            continue
        forward = fused_norm(module) or fused_gate(module)
        if forward is not None:
            module.forward = forward
            changed.append(module)

    def undo() -> None:
        for module in changed:
            del module.forward  # the instance's; the class's is plain again

    return undo


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


def fused_norm(module: nn.Module) -> Forward | None:
    """A forward for a root-mean-square norm, or None where the module is none or computes something else."""
    norm = norm_of(module)
    if norm is None or len(norm.weight) > layers.LARGEST or not _is_served(norm.weight):
        return None
    plain = module.forward

    def by(form: int) -> Forward:
        def forward(x: torch.Tensor) -> torch.Tensor:
            return layers.rms_norm(x, *norm, form) if x.dtype == norm.weight.dtype else plain(x)

        return forward

    return _right(plain, map(by, layers.FORMS), sample(3, len(norm.weight), norm.weight.dtype, norm.weight.device))


def fused_gate(module: Any) -> Forward | None:
    """A forward for a layer `down(act(gate(x)) * up(x))`, or None where it computes something else."""
    gate, up, down = (getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj"))
    if not (isinstance(gate, nn.Linear) and isinstance(up, nn.Linear) and isinstance(down, nn.Linear)):
        return None
    if not takes_one_tensor(module) or not _is_served(gate.weight):
        return None

    def by(gelu: bool) -> Forward:
        def forward(x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = down(layers.gated(gate(x), up(x), gelu))
            return out

        return forward

    return _right(
        module.forward, map(by, (False, True)), sample(3, gate.in_features, gate.weight.dtype, gate.weight.device)
    )


def _is_served(weight: torch.Tensor) -> bool:
    return weight.dtype in DTYPES and why_not(weight.device) is None


@torch.inference_mode()
def _right(plain: Forward, ways: Any, numbers: torch.Tensor) -> Forward | None:
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
