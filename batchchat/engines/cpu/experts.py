"""Mixtures of experts by packed products, for strict mode: what chooses a token's experts, and the experts. Each is
tried on a sample first, and left alone where it gives other numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import psutil
import torch
from torch import nn

from batchchat.engines.continuous.passes import round_up
from batchchat.engines.continuous.trials import is_close, sample, takes_one_tensor
from batchchat.engines.cpu.kernels import ops
from batchchat.engines.cpu.kernels.abi import CLAMPED, GELU, SILU
from batchchat.engines.cpu.kernels.ops import Gate
from batchchat.engines.cpu.packing import Choice
from batchchat.engines.cpu.products import AnyProduct
from batchchat.models.memory import PACKED_SHARE

WAYS = CHOSEN, SHARED, NORMED = range(3)
"""How experts get their scores: by the softmax of the logits of those that were chosen, or of all logits, or these
divided by the sum of the chosen ones'."""
_ROWS = 5
"""Of a sample."""

Scores = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class FusedRouter:
    """Chooses the experts of tokens by the product of hidden states with a weight `[experts, hidden]`."""

    def __init__(self, product: AnyProduct, num_chosen: int, way: int, dtype: torch.dtype):
        self._product = product
        self._num_chosen = num_chosen
        self._way = way
        self._dtype = dtype
        self.products = [product]

    def __call__(self, hidden: torch.Tensor) -> Scores:
        """Logits `[tokens, experts]`, and the scores and numbers `[tokens, chosen]` of the chosen experts."""
        logits = self._product(hidden.reshape(1, -1, hidden.shape[-1]))[0]
        if self._way == CHOSEN:
            found, experts = logits.topk(self._num_chosen, dim=-1)
            scores = found.softmax(dim=-1)
        else:
            scores, experts = logits.softmax(dim=-1, dtype=torch.float32).topk(self._num_chosen, dim=-1)
            if self._way == NORMED:
                scores = scores / scores.sum(dim=-1, keepdim=True)
        return logits, scores.to(self._dtype), experts


class FusedExperts:
    """Experts `down(act(gate(x)) * up(x))`, the products for gate and up joined. A token's numbers do not depend on how
    many others an expert computes if a product's do not."""

    def __init__(self, both: Sequence[AnyProduct], gate: Gate, down: Sequence[AnyProduct]):
        self._both = both
        self._gate = gate
        self._down = down
        self.products = [*both, *down]

    def __call__(self, hidden: torch.Tensor, experts: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """`hidden` `[tokens, size]` by the experts `[tokens, chosen]` of each, summed up by their scores."""
        num_chosen, flat = experts.shape[1], experts.flatten()
        counts = torch.bincount(flat, minlength=len(self._both))
        sizes = [_size(count) for count in counts.tolist()]
        ends = torch.tensor(sizes).cumsum(0)
        by_expert = flat.argsort(stable=True)
        beyond = (ends - torch.tensor(sizes)) - (counts.cumsum(0) - counts)  # the padding of the experts before
        places = torch.empty_like(flat)
        places[by_expert] = torch.arange(len(flat)) + beyond[flat[by_expert]]
        taken = torch.zeros(sum(sizes), dtype=torch.long)
        taken[places] = torch.arange(len(flat)) // num_chosen
        rows, out, first = hidden[None, taken], hidden.new_empty(len(taken), hidden.shape[1]), 0
        for expert, size in enumerate(sizes):
            if size:
                both = self._both[expert](rows[:, first : first + size])
                out[first : first + size] = self._down[expert](ops.gated(both, self._gate))[0]
                first += size
        weighted = out[places].float() * scores.flatten()[:, None].float()
        return weighted.view(len(hidden), num_chosen, -1).sum(dim=1).to(hidden.dtype)


def _size(count: int) -> int:
    """Rows of a product for `count` tokens: one row alone is summed up in another way."""
    return max(2, round_up(count)) if count else 0


def fuse_experts(model: nn.Module, replace: Callable[[nn.Module, Any], None], choice: Choice) -> None:
    """Compute a model's routers and experts by packed products, if there is memory for a second copy of the experts'
    weights."""
    experts = [module for module in model.modules() if _has_experts(module)]
    size = sum(weight.nbytes for module in experts for weight in module.parameters())
    if size > PACKED_SHARE * psutil.virtual_memory().available:
        return
    for module in model.modules():
        if module in experts:
            replace(module, fused_experts(module, choice))
        elif _is_router(module):
            replace(module, fused_router(module, choice))


def packed_products(model: nn.Module) -> Iterator[AnyProduct]:
    """The products of routers and experts that are computed here."""
    for module in model.modules():
        forward = vars(module).get("forward")
        if isinstance(forward, FusedRouter | FusedExperts):
            yield from forward.products


def is_left_alone(module: Any) -> bool:
    """Whether a module multiplies by a weight of its own with its own code, as nothing here or in `packing` does."""
    own = [parameter for parameter in module.parameters(recurse=False) if parameter.dim() > 1]
    return bool(own) and not isinstance(module, nn.Embedding) and "forward" not in vars(module)


def _is_router(module: Any) -> bool:
    names = {name for name, _ in module.named_parameters(recurse=False)}
    return {"weight"} <= names <= {"weight", "bias"} and hasattr(module, "top_k") and module.weight.dim() == 2


def _has_experts(module: Any) -> bool:
    weights = (getattr(module, name, None) for name in ("gate_up_proj", "down_proj"))
    return all(isinstance(weight, nn.Parameter) and weight.dim() == 3 for weight in weights)


@torch.inference_mode()
def fused_router(module: Any, choice: Choice) -> FusedRouter | None:
    """A forward for a router, or None where it chooses otherwise."""
    weight = module.weight.detach()
    if weight.dtype not in ops.STORED or not takes_one_tensor(module):
        return None
    numbers = sample(_ROWS, weight.shape[1], weight.dtype)[0]
    wanted = module(numbers)
    if not isinstance(wanted, tuple) or len(wanted) != 3:
        return None
    product = choice.product(weight, getattr(module, "bias", None))
    for way in WAYS:
        found = FusedRouter(product, module.top_k, way, wanted[1].dtype)
        logits, scores, experts = found(numbers)
        if torch.equal(experts, wanted[2]) and is_close(scores, wanted[1]) and is_close(logits, wanted[0]):
            return found
    return None


@torch.inference_mode()
def fused_experts(module: Any, choice: Choice) -> FusedExperts | None:
    """A forward for experts, or None where they compute something else."""
    num_experts, dtype = len(module.down_proj), module.down_proj.dtype
    if dtype not in ops.STORED:
        return None
    pairs = [list(_weights(module, expert)) for expert in range(num_experts)]
    both, down = ([choice.product(*pair) for pair in side] for side in zip(*pairs, strict=True))
    gates = [Gate(form) for form in (SILU, GELU)]
    if hasattr(module, "limit") and hasattr(module, "alpha"):
        gates.append(Gate(CLAMPED, module.limit, module.alpha))
    numbers = sample(_ROWS, pairs[0][0][0].shape[1], dtype)[0]
    experts = (torch.arange(2) + torch.arange(_ROWS)[:, None]) % num_experts
    scores = torch.linspace(0.2, 0.8, 2 * _ROWS).view(_ROWS, 2).to(dtype)
    wanted = module(numbers, experts, scores)
    ways = [FusedExperts(both, gate, down) for gate in gates]
    best = min(ways, key=lambda way: float((way(numbers, experts, scores) - wanted).abs().sum()))
    return best if is_close(best(numbers, experts, scores), wanted) else None


def _weights(module: Any, expert: int) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
    """An expert's weights `[outputs, size]` for gate and up, one behind the other, and for down, with their biases."""
    for name in ("gate_up_proj", "down_proj"):
        weight, bias = getattr(module, name)[expert].detach(), getattr(module, f"{name}_bias", None)
        weight = weight.T if getattr(module, "is_transposed", False) else weight
        bias = None if bias is None else bias[expert].detach()
        if name == "gate_up_proj" and not getattr(module, "is_concatenated", True):  # one of each in turns
            weight = torch.cat((weight[::2], weight[1::2]))
            bias = None if bias is None else torch.cat((bias[::2], bias[1::2]))
        yield weight, bias
