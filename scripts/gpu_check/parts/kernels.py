"""The kernels, by every backend that takes them, against plain arithmetic in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from batchchat.engines.continuous.attention_spec import AttentionSpec
from batchchat.engines.continuous.paged.contract import Seen
from batchchat.engines.cuda import layers
from batchchat.engines.cuda.backend import Candidate, LayerKind, candidates
from batchchat.engines.cuda.kernels import why_not
from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Finding, tried
from tests.support.pages import Rows, plain, rows_of

_CLOSE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
_SCALING = 0.1
_COMPILERS = 6
"""Cases at a time."""


@dataclass(frozen=True)
class _Case:
    name: str
    dims: tuple[int, int] = (128, 128)
    heads: int = 8
    kv_heads: int = 2
    block_size: int = 32
    count: int = 1
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False

    def features(self, device: str) -> dict[str, Any]:
        sinks = torch.linspace(-3, 3, self.heads, device=device) if self.sinks else None
        return {"window": self.window, "softcap": self.softcap, "sinks": sinks}


_CASES = (
    _Case("heads of 128"),
    _Case("heads of 64, a window and sinks", (64, 64), heads=16, window=70, sinks=True),
    _Case("heads of 256, a window and a softcap", (256, 256), heads=4, window=90, softcap=20.0),
    _Case("heads of 192 and 128", (192, 128), heads=4, kv_heads=4),
    _Case("three tokens of each row", count=3),
    _Case("one key head for 14, heads of 80", (80, 80), heads=14, kv_heads=1),
    _Case("blocks of 256", block_size=256),
    _Case("heads of 8", (8, 8), heads=4),
)


def run(bench: Bench) -> Iterator[Finding]:
    device = torch.device(bench.device)
    missing = why_not(device)
    yield tried("Triton", missing is None, {}, missing or "")
    asked: list[Callable[[], Finding]] = []
    for dtype in (torch.bfloat16, torch.float32, torch.float16) if bench.on_gpu else (torch.float32,):
        if missing is None:
            asked.append(partial(_between, dtype, bench))
        for case in bench.pick(_CASES, _CASES[1:3]):
            kind = LayerKind(case.heads, case.kv_heads, *case.dims, case.block_size, dtype, device)
            kind = replace(kind, softcap=case.softcap is not None, sinks=case.sinks)
            asked += [
                partial(_attention, candidate, case, dtype, bench)
                for candidate in candidates(kind)
                if candidate.why_not is None
            ]
    with ThreadPoolExecutor(_COMPILERS if bench.on_gpu else 1) as pool:  # most of the time goes to compiling
        for done in as_completed([pool.submit(one) for one in asked]):
            yield done.result()


def _attention(candidate: Candidate, case: _Case, dtype: torch.dtype, bench: Bench) -> Finding:
    lengths = bench.pick([1, 0, 64, 333, 700], [1, 0, 70])
    rows = rows_of(lengths, case.kv_heads, case.dims, case.block_size, dtype)
    errors = {
        "decode": _decode(candidate, case, rows, False, bench),
        "decode, strict": _decode(candidate, case, rows, True, bench),
        "prefill": _prefill(candidate, case, rows, bench),
    }
    name = f"{case.name}, {str(dtype).removeprefix('torch.')}, {candidate.name}"
    return tried(name, max(errors.values()) <= _CLOSE[dtype], errors)


def _decode(candidate: Candidate, case: _Case, rows: Rows, strict: bool, bench: Bench) -> float:
    query = _queries(len(rows.dense) * case.count, case, rows)
    spec = AttentionSpec(_SCALING, **case.features(bench.device))
    found = candidate.backend.decode(query.to(bench.device), _moved(rows, bench), spec, batch_invariant=strict)
    wanted = [
        plain(one, *pair, _SCALING, **case.features("cpu"))
        for one, pair in zip(query.split(case.count), rows.dense, strict=True)
    ]
    return _largest(found, torch.cat(wanted))


def _prefill(candidate: Candidate, case: _Case, rows: Rows, bench: Bench) -> float:
    """Some of each row's tokens, and three of padding."""
    counts = [min(length, 40 + 7 * row) for row, length in enumerate(rows.lengths.tolist())]
    starts = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    query = _queries(sum(counts) + 3, case, rows)
    spec = AttentionSpec(_SCALING, **case.features(bench.device))
    found = candidate.backend.prefill(query.to(bench.device), _moved(rows, bench), starts.to(bench.device), spec)
    parts = zip(query.split([*counts, 3]), rows.dense, strict=False)
    wanted = [plain(one, *pair, _SCALING, **case.features("cpu")) for one, pair in parts]
    return _largest(found, torch.cat([*wanted, torch.zeros(3, *wanted[0].shape[1:], dtype=torch.float64)]))


def _between(dtype: torch.dtype, bench: Bench) -> Finding:
    """Norms and gates, which lie between attentions."""
    size = bench.pick(4096, 300)
    random = torch.Generator().manual_seed(5)
    x, residual = (torch.randn(5, size, generator=random).to(dtype) for _ in range(2))
    weight = torch.rand(size, generator=random).to(dtype)
    placed = [tensor.to(bench.device) for tensor in (x, residual, weight)]
    normed, summed = layers.add_rms_norm(*placed, 1e-6)
    wide = summed.double().cpu()
    wanted = wide / (wide.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight.double()
    gated = layers.gated(placed[0], placed[1])
    errors = {
        "norm": _largest(normed, wanted),
        "sum": _largest(summed, x.double() + residual.double()),
        "gate": _largest(gated, torch.nn.functional.silu(x.double()) * residual.double()),
    }
    name = f"norms and gates, {str(dtype).removeprefix('torch.')}"
    return tried(name, max(errors.values()) <= 4 * _CLOSE[dtype], errors)


def _queries(count: int, case: _Case, rows: Rows) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.randn(count, case.heads, case.dims[0], generator=random).to(rows.keys.dtype)


def _moved(rows: Rows, bench: Bench) -> Seen:
    return Seen(*(tensor.to(bench.device) for tensor in rows.seen))


def _largest(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference; NaN, which is no number, counts as infinite."""
    return float((found.double().cpu() - wanted).abs().nan_to_num(nan=torch.inf).max())
