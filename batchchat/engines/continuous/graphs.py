"""Passes recorded at the start, for some numbers of rows that decode and of tokens of prompts, and replayed: on a GPU
the launching of many small kernels costs more than the kernels do.

Block tables and lengths are inputs of a pass, so one recording serves every mixture of lengths. All recordings read
their inputs from the same memory, into which each pass is filled.
(Recorded steps for buckets of rows: nano-vllm, https://docs.vllm.ai/en/latest/design/cuda_graphs.html)
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import torch

from batchchat.engines.continuous.paged.batch import Form, PagedPass

Compute = Callable[[PagedPass], torch.Tensor]
"""Runs the model over a pass: logits `[wanted, vocabulary]`."""
Record = Callable[[Callable[[], torch.Tensor]], Callable[[], torch.Tensor]]
"""From a computation without arguments to its replay, which gives its result in the same memory each time."""


class Recordings:
    """Of passes of some forms. `blank` has room for each of them, and all are recorded on its memory; the largest comes
    first, as its memory serves the others."""

    def __init__(self, compute: Compute, record: Record, blank: PagedPass, forms: Collection[Form]):
        ordered = sorted(forms, key=lambda form: form.size, reverse=True)
        self._passes = {form: blank.part(form) for form in ordered}
        self._width = blank.tables.shape[1]
        self._replays = {form: record(_step(compute, own)) for form, own in self._passes.items()}
        self.forms = tuple(reversed(ordered))
        """The smallest first."""
        self.num_replayed = 0

    def __len__(self) -> int:
        return len(self._replays)

    def serve(self, work: PagedPass) -> bool:
        """Whether there is a recording for a pass."""
        return work.form in self._replays and work.tables.shape[1] <= self._width

    def replay(self, work: PagedPass) -> torch.Tensor:
        """The logits of a pass that is served, valid until the next one."""
        form = work.form
        self._passes[form].fill(work)
        self.num_replayed += 1
        return self._replays[form]()[: work.num_wanted]


def _step(compute: Compute, work: PagedPass) -> Callable[[], torch.Tensor]:
    return lambda: compute(work)


class CudaGraphs:
    """Makes recordings as CUDA graphs that share their memory: one is replayed at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: tuple[int, int] | None = None

    def __call__(self, step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """A computation is run twice before it is recorded, as kernels are compiled and choose their plans when they
        first run; rows that hold nothing write nothing."""
        with torch.cuda.device(self._device):
            aside, main = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(main)
            with torch.cuda.stream(aside):
                for _ in range(2):
                    step()
            main.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # others may watch it
                logits = step()
        self._pool = graph.pool()

        def replay() -> torch.Tensor:
            graph.replay()
            return logits

        return replay
