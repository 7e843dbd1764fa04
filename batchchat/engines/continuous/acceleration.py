"""What computes a model faster than torch's operators on one kind of device: an optional part, found by the device."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, MutableMapping
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.batch import Pass
from batchchat.engines.facts import ProductFacts, QuantizedFacts

ACCELERATIONS: dict[str, str] = {"cpu": "batchchat.engines.cpu", "cuda": "batchchat.engines.cuda.acceleration"}
"""Device type to the module that is its `Acceleration`; imported only when a model lies there."""

QUANTIZED: WeakKeyDictionary[torch.nn.Module, QuantizedFacts] = WeakKeyDictionary()
"""Of prepared models with layers of bitsandbytes: how these are multiplied."""


class Acceleration(Protocol):
    """Faster ways to compute, each taken only where it gives the numbers of the plain one."""

    def prepare(
        self, model: Any, batch_invariant: bool = False, kept: MutableMapping[str, Any] | None = None
    ) -> Callable[[], None]:
        """Change how a loaded model computes, with `batch_invariant` so that a row's bits depend on no other, as far as
        that can be had. Returns what undoes it. `kept` is what a run remembers: it goes on in the way in which it
        began."""
        ...

    def products(self, model: Any) -> tuple[ProductFacts, ...]:
        """What computes the products of a prepared model, as far as it was chosen."""
        ...

    def has_kernels(self) -> bool:
        """Whether there are kernels here at all, for the report."""
        ...

    def attends(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spec: AttentionSpec) -> bool:
        """Whether `attend` does this attention."""
        ...

    def attend(
        self,
        work: Pass,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        out: torch.Tensor,
        spec: AttentionSpec,
    ) -> None:
        """Keep keys and values of a pass's spans, but for its long ones, and write their attention to `out`. Shapes as
        in `attention.attend`."""
        ...

    def products_are_invariant(self, model: Any, sizes: Collection[int]) -> bool:
        """Whether a prepared model's products give a row the same bits in passes of all these sizes."""
        ...


def acceleration(device: torch.device) -> Acceleration | None:
    """That of a device, None where there is none."""
    module = ACCELERATIONS.get(device.type)
    found: Acceleration | None = None if module is None else importlib.import_module(module)
    return found
