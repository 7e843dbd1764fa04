"""Recordings of steps as a GPU makes them, but for the GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass
class Replays:
    """Each replay runs the same computation again, over the tensors that it was recorded on, and puts what it gives
    where it was put the first time: what was read by then is lost, as on a GPU."""

    num_made: int = 0
    num_replayed: int = 0

    def __call__(self, step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        self.num_made += 1
        out = step().clone()

        def replay() -> torch.Tensor:
            self.num_replayed += 1
            return out.copy_(step())

        return replay
