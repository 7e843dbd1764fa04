"""Steps that only decode, recorded once and replayed: on a GPU the launching of many small kernels costs more than the
kernels do.

A recorded pass reads its inputs from tensors of its own, and runs on the slots' tensors where these were when it was
recorded. So it is replayed for passes of the same layout only, and forgotten when a pool moves.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from batchchat.engines.continuous.batch import Pass

Compute = Callable[[Pass], torch.Tensor]
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
    work: Pass
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

    def forward(self, work: Pass) -> torch.Tensor:
        """The pass's logits. They are valid until the next pass."""
        if self._record is None or work.prefilling:
            return self._compute(work)
        layout = _layout(work)
        found = self._recorded.get(layout)
        if found is None:
            found = self._begin(layout, work)
        if found is None:
            return self._compute(work)
        self._recorded.move_to_end(layout)
        for mine, theirs in zip(_inputs(found.work), _inputs(work), strict=True):
            mine.copy_(theirs)
        self.num_replayed += 1
        return found.replay()

    def _begin(self, layout: Any, work: Pass) -> _Recorded | None:
        """A recording of this layout, once it has come often enough."""
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        self._seen[layout] += 1
        if self._seen[layout] < _SIGHTINGS or self._record is None:
            return None
        own = _own_inputs(work)

        def step() -> torch.Tensor:
            for group in own.decoding:
                group.masks.clear()  # made anew from the lengths, within the recording
            return self._compute(own)

        try:
            found = _Recorded(own, self._record(step))
        except Exception as error:  # a model may do what cannot be recorded; it is computed plainly then
            self._record = None
            self._recorded.clear()
            self._told(f"steps cannot be recorded ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
            return None
        self._forget_moved(work)
        self._recorded[layout] = found
        if len(self._recorded) > _MOST:
            self._recorded.popitem(last=False)
        return found

    def _forget_moved(self, work: Pass) -> None:
        """Drop recordings over pools that have moved since."""
        moved = [
            layout
            for layout, found in self._recorded.items()
            if any(version != group.pool.version for version, group in zip(layout[2], found.work.decoding, strict=True))
        ]
        for layout in moved:
            del self._recorded[layout]
            self._seen.pop(layout, None)


def _layout(work: Pass) -> Any:
    """All of a pass but the values in its input tensors."""
    return (
        tuple(tuple(tensor.shape) for tensor in _inputs(work)),
        tuple(
            (id(group.pool), group.first, group.last, group.count, group.num_rows, group.length)
            for group in work.decoding
        ),
        tuple(group.pool.version for group in work.decoding),
        tuple(id(write.pool) for write in work.writes),
        work.num_wanted,
    )


def _inputs(work: Pass) -> Iterator[torch.Tensor]:
    yield from (work.input_ids, work.position_ids, work.wanted)
    for write in work.writes:
        yield from (write.tokens, write.rows, write.places)
    for group in work.decoding:
        if group.rows is not None:
            yield group.rows
        yield group.lengths


def _own_inputs(work: Pass) -> Pass:
    """The same pass on copies of its input tensors."""
    return replace(
        work,
        input_ids=work.input_ids.clone(),
        position_ids=work.position_ids.clone(),
        wanted=work.wanted.clone(),
        writes=[
            replace(write, tokens=write.tokens.clone(), rows=write.rows.clone(), places=write.places.clone())
            for write in work.writes
        ],
        decoding=[
            replace(
                group,
                rows=None if group.rows is None else group.rows.clone(),
                lengths=group.lengths.clone(),
                masks={},
            )
            for group in work.decoding
        ],
    )


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
