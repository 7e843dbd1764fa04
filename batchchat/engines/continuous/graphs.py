"""Steps that only decode, recorded once and replayed: on a GPU the launching of many small kernels costs more than the
kernels do.

A recorded pass reads its inputs from tensors of its own, and runs on the slots' tensors where these were when it was
recorded. So it is replayed for passes of the same layout only, and forgotten when a pool moves.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from batchchat.engines.continuous.base import PackedPass

Compute = Callable[[PackedPass], torch.Tensor]
"""Runs the model over a pass: logits `[wanted, vocabulary]`."""
Record = Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]
"""From a computation without arguments to its replay."""

_SIGHTINGS = 4
"""How often a layout must come before it is recorded: that takes as long as many steps."""
_REMEMBERED = 10_000
"""Layouts whose sightings are counted at a time: a long run has ever new ones."""
_MOST = 96
"""Recordings that are kept, those used last."""


@dataclass(slots=True)
class _Recorded:
    work: PackedPass
    replay: Callable[[], torch.Tensor]


class Recorder:
    """Replays passes where it can. `record` makes the recordings, `told` hears why there will be none."""

    def __init__(self, compute: Compute, record: Record, told: Callable[[str], None]):
        self._compute = compute
        self._record: Record | None = record
        self._told = told
        self._seen: Counter[Any] = Counter()
        self._recorded: OrderedDict[Any, _Recorded] = OrderedDict()
        self.num_replayed = 0

    def forward(self, work: PackedPass) -> torch.Tensor:
        """The pass's logits. They are valid until the next pass."""
        layout = work.layout
        if self._record is None or layout is None:
            return self._compute(work)
        found = self._recorded.get(layout)
        if found is None:
            found = self._begin(layout, work)
        if found is None:
            return self._compute(work)
        self._recorded.move_to_end(layout)
        found.work.fill(work)
        self.num_replayed += 1
        return found.replay()[: work.num_wanted]

    def _begin(self, layout: Any, work: PackedPass) -> _Recorded | None:
        """A recording of this layout, once it has come often enough."""
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        self._seen[layout] += 1
        if self._seen[layout] < _SIGHTINGS or self._record is None:
            return None
        own = work.own_inputs()

        def step() -> torch.Tensor:
            own.begin()
            return self._compute(own)

        try:
            found = _Recorded(own, self._record(step))
        except Exception as error:  # a model may do what cannot be recorded; it is computed plainly then
            self._record = None
            self._recorded.clear()
            self._told(f"steps cannot be recorded ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
            return None
        self._forget_moved()
        self._recorded[layout] = found
        if len(self._recorded) > _MOST:
            self._recorded.popitem(last=False)
        return found

    def _forget_moved(self) -> None:
        """Drop recordings over pools that have moved since."""
        moved = [layout for layout, found in self._recorded.items() if found.work.layout != layout]
        for layout in moved:
            del self._recorded[layout]
            self._seen.pop(layout, None)


def record_cuda(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """A computation as a CUDA graph. It is run twice before, as kernels choose their plans when they first run; what it
    writes into slots is the same each time."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return logits

    return replay
