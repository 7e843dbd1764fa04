"""How a loaded model computes on the CPU: packed products, fused layers, or all of it as one program."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import torch
from torch import nn

from batchchat.engines.continuous.acceleration import QUANTIZED
from batchchat.engines.cpu.kernels import compiled, programmable
from batchchat.engines.cpu.packing import Choice, Replace, pack
from batchchat.engines.facts import QuantizedFacts
from batchchat.models.quantized import quantized_layers


def prepare(
    model: nn.Module, batch_invariant: bool = False, kept: MutableMapping[str, Any] | None = None
) -> Callable[[], None]:
    """Pack a model's products, compute its norms and gated layers by kernels, and all of it by a program, each where
    that gives the model's own numbers. Returns what undoes it. With `batch_invariant` products are taken that give a
    row its own bits, and experts are packed too, which torch computes as fast, but not always in one order. `kept`: see
    `packing.Choice`."""
    changed: dict[nn.Module, Any] = {}
    undoing: list[Callable[[], None]] = []

    def replace(module: nn.Module, forward: Callable[[torch.Tensor], torch.Tensor] | None) -> None:
        if forward is not None:
            changed.setdefault(module, vars(module).get("forward"))
            module.forward = forward

    def undo() -> None:
        for module, before in changed.items():
            del module.forward  # the instance's; the class's is plain again
            if before is not None:
                module.forward = before
        for step in undoing:
            step()

    undoing.append(_multiply_quantized(model, replace))
    choice = Choice({} if kept is None else kept, independent=batch_invariant)
    gates = pack(model, replace, choice)
    if compiled() and changed:
        from batchchat.engines.cpu.experts import fuse_experts
        from batchchat.engines.cpu.fusing import fuse_rotary, fused_gate, fused_norm, joined_gates

        undoing.append(fuse_rotary(model))
        for module in model.modules():
            replace(module, fused_norm(module))
        for module, product in (gates | joined_gates(model)).items():
            replace(module, fused_gate(module, product))
        if batch_invariant:
            fuse_experts(model, replace, choice)
        if programmable():
            from batchchat.engines.cpu.lowering import lower

            undoing.append(lower(model))
    choice.keep()
    return undo


def _multiply_quantized(model: nn.Module, replace: Replace) -> Callable[[], None]:
    """Have layers of bitsandbytes computed by kernels, as far as there are any. Returns what undoes that it is told."""
    layers = quantized_layers(model)
    if not layers:
        return lambda: None
    if compiled():
        from batchchat.engines.cpu.quantizing import multiply_quantized

        QUANTIZED[model] = multiply_quantized(model, layers, replace)
    else:
        why = "kernels need numba, and a torch that computes with GNU OpenMP's threads"
        QUANTIZED[model] = QuantizedFacts(
            by="bitsandbytes", layers=0, bytes_held=0, difference=None, left={why: len(layers)}
        )

    def undo() -> None:
        QUANTIZED.pop(model, None)

    return undo
