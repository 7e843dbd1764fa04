"""A long run of requests whose lengths are all equally likely."""

from __future__ import annotations

from collections.abc import Iterator

from batchchat.benchmarks.contenders import EngineContender, continuous_engine
from batchchat.benchmarks.worker import least_passes, least_seconds
from batchchat.benchmarks.workloads import equal, uniform
from batchchat.models.facts import model_facts
from batchchat.reporting.limits import machine_limits
from batchchat.reporting.watch import Watcher
from scripts.gpu_check.bench import Bench, Noted, seconds
from scripts.gpu_check.findings import Finding, aimed

_BUSY = 0.95
"""Share of the time in which the GPU should compute."""


def small(bench: Bench) -> Iterator[Finding]:
    yield _drained(bench, "0.6b")


def eight_billion(bench: Bench) -> Iterator[Finding]:
    yield _drained(bench, "8b")


def _drained(bench: Bench, shape: str) -> Finding:
    model, codec = bench.shape(shape)
    requests = bench.pick(uniform(256), uniform(4, 10, 20))
    meter = Noted()
    contender = EngineContender(continuous_engine(model, codec, len(requests), meter=meter, max_batch_tokens=None))
    list(contender.drain(equal(8, 40, 8, seed=300)))
    done: list[tuple[int, int]] = []
    with Watcher(interval=0.1) as watcher:
        taken = seconds(lambda: done.extend(contender.drain(requests)))
    facts = contender.engine.describe()
    contender.close()
    tokens = sum(count for _, count in done)
    limits = machine_limits(bench.dtype, str(model.device))
    prompts, passes = sum(len(one.prompt_ids) for one in requests), least_passes(requests, len(requests))
    least = least_seconds(model_facts(model), prompts, tokens, passes, limits)
    recording = watcher.recording()
    busy = [percent for percent in recording.columns.get("gpu0_percent", ()) if percent is not None][1:-1]
    share = sum(busy) / len(busy) / 100 if busy else None
    joules = (recording.energy_joules or {}).get("gpu0")
    figures = {
        "requests": len(done),
        "seconds": taken,
        "tokens/s": tokens / taken,
        "seconds at least": least,
        "GPU busy": share,
        "J/token": None if joules is None else joules / tokens,
        "gave up a place": facts.preempted,
        "replayed": facts.steps_replayed,
        "KV budget, tokens": facts.kv_budget_tokens,
    }
    return aimed(shape, None if share is None else share >= _BUSY, f"the GPU busy for {_BUSY:.0%} of the time", figures)
