"""Running out of memory for real: batches are split, what fits is learned, and every request is answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from batchchat.benchmarks.contenders import continuous_engine
from batchchat.benchmarks.workloads import equal
from batchchat.engines.base import EngineConfig
from batchchat.engines.memory import free_bytes, release_memory
from batchchat.engines.pipeline.engine import PipelineEngine
from scripts.gpu_check.bench import Bench, Noted
from scripts.gpu_check.findings import Finding, tried
from scripts.gpu_check.parts.answers import answered

_LEFT = 700 * 2**20
"""Bytes that are left free beside the weights of half a billion: two thirds of what the requests would take."""

_MOST_ROWS = 3
"""Of a pass, where memory is only said to be short."""


def run(bench: Bench) -> Iterator[Finding]:
    model, codec = bench.shape("0.5b")
    rows = bench.pick(64, 8)
    asked = equal(rows, bench.pick(1000, 20), bench.pick(24, 4))
    meter = Noted()
    padded = PipelineEngine(model, codec, meter, EngineConfig(rows, 1 << 30))
    with _short_of_memory(model, bench):
        found = answered(padded, asked)
    learned = padded.describe().learned_batch_tokens
    padded.close()
    figures = {
        "answers": len(found),
        "out of memory": meter.count("out_of_memory"),
        "split": meter.count("split_batch"),
        "learned tokens": learned,
    }
    yield tried("padded batches", meter.count("split_batch") > 0 and learned is not None, figures)
    release_memory()
    meter = Noted()
    engine = continuous_engine(model, codec, rows, meter=meter, max_batch_tokens=rows * 2048)
    with _short_of_memory(model, bench):
        found = answered(engine, asked)
    learned = engine.describe().learned_batch_tokens
    engine.close()
    figures = {"answers": len(found), "out of memory": meter.count("out_of_memory"), "learned tokens": learned}
    yield tried("in flight", meter.count("out_of_memory") > 0 and learned is not None, figures)


@contextmanager
def _short_of_memory(model: Any, bench: Bench) -> Iterator[None]:
    """All memory of the device but a little is taken; on a CPU, where that would hurt others, rows are refused."""
    if bench.on_gpu:
        release_memory()
        free = free_bytes(model.device)
        taken = torch.empty(max(0, free - _LEFT), dtype=torch.uint8, device=model.device)
        yield
        del taken
        return
    output = model.get_output_embeddings()
    forward = output.forward

    def refusing(hidden: torch.Tensor) -> torch.Tensor:
        if hidden.numel() > _MOST_ROWS * hidden.shape[-1]:
            raise torch.OutOfMemoryError("no memory is left, as far as this trial goes")
        return forward(hidden)

    output.forward = refusing
    try:
        yield
    finally:
        output.forward = forward
