"""What NVML tells of the device, and what it costs to listen."""

from __future__ import annotations

from collections.abc import Iterator

from batchchat.benchmarks.contenders import EngineContender, continuous_engine
from batchchat.benchmarks.workloads import equal
from batchchat.reporting.report import Recording
from batchchat.reporting.watch import Watcher
from scripts.gpu_check.bench import Bench, seconds
from scripts.gpu_check.findings import Finding, aimed, tried

_COST = 1.02
"""How many times as long a run may take that is listened to."""
_ROUNDS = 6


def run(bench: Bench) -> Iterator[Finding]:
    model, codec = bench.shape("0.5b")
    rows, answer = bench.pick((16, 600), (2, 6))
    contender = EngineContender(continuous_engine(model, codec, rows))
    number = 400

    def drain() -> float:
        nonlocal number
        number += 1
        requests = equal(rows, 40, answer, number)
        return seconds(lambda: list(contender.drain(requests)))

    drain()
    alone, watched = [], []
    for _ in range(bench.pick(_ROUNDS, 1)):
        alone.append(drain())
        with Watcher() as watcher:
            watched.append(drain())
    contender.close()
    recording, missing = watcher.recording(), watcher.missing
    times = min(watched) / min(alone)  # what else the machine does only adds
    figures = {"seconds": min(alone), "watched": min(watched), "times as long": times}
    yield aimed("cost", times <= _COST if bench.on_gpu else None, f"at most {_COST} times", figures)
    told = {name: _mean(recording, f"gpu0_{name}") for name in ("bytes", "percent", "watts")}
    joules = (recording.energy_joules or {}).get("gpu0")
    told["J/token"] = None if joules is None else joules / (rows * answer)
    right = not bench.on_gpu or (not missing and None not in told.values())
    yield tried("figures of the device", right, told, "; ".join(f"{name}: {why}" for name, why in missing.items()))


def _mean(recording: Recording, name: str) -> float | None:
    values = [value for value in recording.columns.get(name, ()) if value is not None]
    return sum(values) / len(values) if values else None
