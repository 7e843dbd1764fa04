"""What a model gets on a CPU: packed weights, compiled kernels, and whole passes without Python in between.

The `Acceleration` of the continuous engine for models that lie on a CPU; nothing of it is needed for right answers.
"""

from __future__ import annotations

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.batch import Pass
from batchchat.engines.cpu.invariance import products_are_invariant
from batchchat.engines.cpu.kernels import attends as _attends
from batchchat.engines.cpu.kernels import compiled as has_kernels
from batchchat.engines.cpu.packing import product_facts as products
from batchchat.engines.cpu.preparation import prepare


def attends(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spec: AttentionSpec) -> bool:
    """Whether a kernel does this attention."""
    return _attends(query, key, value, spec.sinks)


def attend(
    work: Pass,
    layer: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    spec: AttentionSpec,
) -> None:
    """Keep keys and values of the rows of a pass's plan, and write their attention to `out` `[tokens, heads, dim]`."""
    from batchchat.engines.cpu.kernels import ops

    if len(work.plan[0]):
        ops.write_kv(work, layer, key, value)
        ops.attend_rows(work, layer, query, out, spec)


__all__ = ["attend", "attends", "has_kernels", "prepare", "products", "products_are_invariant"]
