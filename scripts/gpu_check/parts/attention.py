"""Decode attention alone, by each way to compute it."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged.contract import Seen
from batchchat.engines.continuous.paged.pages import new_pages
from batchchat.engines.cuda.backend import LayerKind, candidates
from batchchat.reporting.limits import machine_limits
from scripts.gpu_check.bench import Bench, seconds
from scripts.gpu_check.findings import Finding

_DIM = 128
_SECONDS = 0.05
"""In which one way is called again and again."""


def run(bench: Bench) -> Iterator[Finding]:
    device = torch.device(bench.device)
    dtype = getattr(torch, bench.dtype)
    bandwidth = machine_limits(bench.dtype, "cuda:0" if bench.on_gpu else "cpu").bytes_per_second
    heads, kv_heads = bench.pick((32, 8), (2, 1))
    for block_size in bench.pick((16, 256), (16,)):
        kind = LayerKind(heads, kv_heads, _DIM, _DIM, block_size, dtype, device)
        for rows, length in bench.pick(((1, 4096), (32, 2048), (128, 1024)), ((2, 40),)):
            for candidate in candidates(kind):
                if candidate.why_not is None:
                    for strict in (False, True):
                        name = f"{candidate.name}, blocks of {block_size}, {rows} rows of {length}"
                        moved = 2 * rows * length * kv_heads * _DIM * dtype.itemsize
                        taken = _decoded(candidate.backend, kind, rows, length, strict, bench)
                        figures = {
                            "µs": taken * 1e6,
                            "GB/s": moved / taken / 1e9,
                            "of the bandwidth": moved / taken / bandwidth,
                        }
                        yield Finding(f"{name}, strict" if strict else name, figures)


def _decoded(backend: object, kind: LayerKind, rows: int, length: int, strict: bool, bench: Bench) -> float:
    """Seconds of one call, of many in a row."""
    blocks = -(-length // kind.block_size)
    keys, values = (
        new_pages(rows * blocks, kind.block_size, kind.kv_heads, dim, kind.dtype, kind.device).normal_()
        for dim in (kind.key_dim, kind.value_dim)
    )
    tables = torch.randperm(rows * blocks, device=kind.device).to(torch.int32).view(rows, blocks)
    lengths = torch.full((rows,), length, dtype=torch.int32, device=kind.device)
    seen = Seen(keys, values, tables, lengths)
    query = torch.randn(rows, kind.heads, kind.key_dim, dtype=kind.dtype, device=kind.device)

    def calls(times: int) -> float:
        """Seconds of each."""
        spec = AttentionSpec(0.1)

        def work() -> None:
            for _ in range(times):
                backend.decode(query, seen, spec, batch_invariant=strict)  # type: ignore[attr-defined]

        return seconds(work) / times

    calls(1)
    times = bench.pick(max(1, min(50, int(_SECONDS / calls(1)))), 1)  # some ways take a thousand times as long
    return min(calls(times) for _ in range(bench.pick(3, 1)))
