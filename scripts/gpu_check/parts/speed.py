"""How much of the machine's limits decode steps and prompts reach, on models of real shapes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from batchchat.benchmarks.contenders import EngineContender, continuous_engine
from batchchat.benchmarks.worker import least_seconds
from batchchat.benchmarks.workloads import equal
from batchchat.models.facts import model_facts
from batchchat.reporting.limits import MachineLimits, machine_limits
from scripts.gpu_check.bench import Bench, seconds
from scripts.gpu_check.findings import Finding, aimed

_ROWS = (1, 8, 32, 128)
_PROMPT = 128
_SHARE, _UP_TO_ROWS = 0.7, 32
"""Of the memory's bandwidth, which few rows should reach on the largest shape."""
_STRICT = 1.1
"""How many times as long steps may take in strict mode."""
_TURNS = 4
_UNEASY = "the machine was too uneasy to tell the time of a step"


def eight_billion(bench: Bench) -> Iterator[Finding]:
    yield from _speed(bench, "8b", aimed_at=_SHARE)


def two_billion(bench: Bench) -> Iterator[Finding]:
    yield from _speed(bench, "1.7b")


def half_billion(bench: Bench) -> Iterator[Finding]:
    yield from _speed(bench, "0.5b")


def _speed(bench: Bench, shape: str, aimed_at: float | None = None) -> Iterator[Finding]:
    model, codec = bench.shape(shape)
    limits = machine_limits(bench.dtype, str(model.device))
    contender = EngineContender(continuous_engine(model, codec, max(_ROWS)))
    cache_bytes = contender.engine.describe().cache_bytes_per_token
    steps: dict[int, float] = {}
    for rows in bench.pick(_ROWS, (1, 8)):
        case = f"decode step, {rows} rows"
        taken, context = _step(contender, rows, bench)
        if taken is None:
            yield Finding(case, {}, note=_UNEASY)
            continue
        steps[rows] = taken
        moved = _weight_bytes(model) + rows * context * (cache_bytes or 0)
        share = moved / taken / limits.bytes_per_second
        figures = {
            "ms": taken * 1e3,
            "tokens/s": rows / taken,
            "GB/s": moved / taken / 1e9,
            "of the bandwidth": share,
            "ms at least": moved / limits.bytes_per_second * 1e3,
        }
        applies = aimed_at is not None and rows <= _UP_TO_ROWS and bench.on_gpu
        reached = share >= aimed_at if applies and aimed_at is not None else None
        yield aimed(case, reached, f"{_SHARE:.0%} of the bandwidth", figures)
    yield _prompts(contender, model, limits, bench)
    replayed = contender.engine.describe().steps_replayed
    contender.close()
    for name, rows, settings in (
        ("strict", bench.pick(32, 8), {"reproducible": "strict"}),
        ("strict", 1, {"reproducible": "strict"}),
        ("not recorded", bench.pick(8, 1), {"cuda_graphs": False}),
    ):
        other = EngineContender(continuous_engine(model, codec, max(rows, bench.pick(32, 8)), **settings))
        taken, _ = _step(other, rows, bench)
        other.close()
        case = f"decode step, {rows} rows, {name}"
        if taken is None or rows not in steps:
            yield Finding(case, {}, note=_UNEASY)
            continue
        times = taken / steps[rows]
        reached = times <= _STRICT if name == "strict" and bench.on_gpu else None
        figures = {"ms": taken * 1e3, "tokens/s": rows / taken, "times as long": times}
        yield aimed(case, reached, f"at most {_STRICT} times", figures)
    yield Finding("steps replayed", {"steps": replayed})


def _step(contender: EngineContender, rows: int, bench: Bench) -> tuple[float | None, float]:
    """Seconds of a step in which `rows` rows decode, and the tokens that each of them sees on average: the difference
    between drains of long and of short answers, the fastest of each, so that nothing but such steps counts. None where
    the machine was too uneasy for a difference."""
    short, long = bench.pick((8, 72), (2, 6))
    prompt = bench.pick(_PROMPT, 20)

    def drain(answer: int, seed: int) -> float:
        requests = equal(rows, prompt, answer, seed)
        return seconds(lambda: list(contender.drain(requests)))

    drain(long, seed=100)  # passes of all sizes have been met
    pairs = [(drain(short, 101 + turn), drain(long, 111 + turn)) for turn in range(_TURNS)]
    begun, whole = (min(times) for times in zip(*pairs, strict=True))
    taken = (whole - begun) / (long - short)
    return taken if taken > 0 else None, prompt + (short + long) / 2


def _prompts(contender: EngineContender, model: Any, limits: MachineLimits, bench: Bench) -> Finding:
    """Prompts with one token of answer: the floor is their products, without attention."""
    count, length = bench.pick((32, 1024), (2, 30))
    list(contender.drain(equal(count, length, 1, seed=109)))
    requests = equal(count, length, 1, seed=110)
    taken = seconds(lambda: list(contender.drain(requests)))
    least = least_seconds(model_facts(model), count * length, count, 0, limits)
    figures = {
        "ms": taken * 1e3,
        "tokens/s": count * length / taken,
        "of the matrix rate": least / taken,
        "ms at least": least * 1e3,
    }
    return Finding(f"{count} prompts of {length} tokens", figures)


def _weight_bytes(model: Any) -> int:
    """What a step reads of the weights: all but a table of which it looks up some rows."""
    table, output = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    whole = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return whole if table is output else whole - table.numel() * table.element_size()
