"""The engines beside each other, and beside transformers' own."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import torch

from batchchat.benchmarks.contenders import CONTENDERS
from batchchat.benchmarks.worker import least_passes, least_seconds
from batchchat.benchmarks.workloads import equal, mixed
from batchchat.chats import Request
from batchchat.models.facts import model_facts
from batchchat.reporting.limits import machine_limits
from scripts.gpu_check.bench import Bench, seconds
from scripts.gpu_check.findings import Finding, aimed

_ENGINES = ("continuous", "strict", "pipeline", "transformers", "plain")
_TIMES = {"transformers": 3.0, "pipeline": 8.0}
"""How many times as fast the continuous engine should be."""
_PLAIN = 16
"""The plain pipeline gets one of so many requests: its batches are alike, and it is slow."""


def run(bench: Bench) -> Iterator[Finding]:
    model, codec = bench.shape("1.7b")
    rows, requests = bench.pick(64, 4), mixed(bench.pick(128, 8))
    limits = machine_limits(bench.dtype, str(model.device))
    ours = 0.0
    for name in _ENGINES:
        contender = CONTENDERS[name](model, codec, rows)
        list(contender.drain(equal(2, 40, 4, seed=200)))
        asked: list[Request] = requests[::_PLAIN] if name == "plain" else requests
        done: list[tuple[int, int]] = []
        taken = seconds(lambda contender=contender, asked=asked, done=done: done.extend(contender.drain(asked)))  # type: ignore[misc]
        contender.close()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        tokens = sum(count for _, count in done)
        rate = tokens / taken
        ours = ours or rate
        prompts, passes = sum(len(one.prompt_ids) for one in asked), least_passes(asked, len(asked))
        least = least_seconds(model_facts(model), prompts, tokens, passes, limits)
        figures = {
            "requests": len(done),
            "seconds": taken,
            "tokens/s": rate,
            "continuous is faster by": ours / rate,
            "seconds at least": least,
        }
        times = _TIMES.get(name)
        reached = None if times is None or not bench.on_gpu else ours / rate >= times
        yield aimed(name, reached, f"{times} times", figures)
