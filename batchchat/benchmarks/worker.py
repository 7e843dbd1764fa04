"""One measurement in a process of its own: `python -m batchchat.benchmarks.worker JSON` prints one JSON line.

The job names `engine`, `model` (a shape or any model that the recipe's `model.name` takes), `dtype`, `rows` and
`workload`, and with `folder` where the model is read from that has been written already.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batchchat.chats import Request
    from batchchat.models.facts import ModelFacts
    from batchchat.reporting.limits import MachineLimits

PEERS = ("plain", "transformers")
"""Engines that are not ours: their processes begin as libraries have it."""
MARK = "batchchat-benchmark "
"""What the result's line begins with: libraries print too."""


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Load, warm up with two short requests, drain the workload."""
    from batchchat.models.lean import import_lean
    from batchchat.process import begin

    read = job.pop("folder", job["model"])
    if job["engine"] not in PEERS:
        begin()
        import_lean(_recipe(read, job["dtype"]))
    import psutil

    from batchchat.benchmarks.contenders import CONTENDERS
    from batchchat.benchmarks.workloads import WORKLOADS, fitted, second_turn
    from batchchat.reporting.meters import device_peaks, host_peak_bytes

    born = psutil.Process().create_time()
    begun = time.perf_counter()
    model, codec = load(read, job["dtype"])
    contender = CONTENDERS[job["engine"]](model, codec, job["rows"])
    loaded = time.perf_counter() - begun
    requests = fitted(WORKLOADS[job["workload"]](), model.get_input_embeddings().weight.shape[0])
    short = [replace(request, settings=replace(request.settings, max_new_tokens=2)) for request in requests[:2]]
    list(contender.drain(short))
    first = time.time() - born
    two_turns = job["workload"] == "two-turns"
    start = time.perf_counter()
    counts = []
    to_first = None
    for done in contender.drain(requests, two_turns):
        to_first = time.perf_counter() - start if to_first is None else to_first
        counts.append(done[1])
    seconds = time.perf_counter() - start
    facts = contender.facts()
    contender.close()
    prompt_tokens = sum(len(request.prompt_ids) for request in requests)
    later = [second_turn(one, (0,) * one.settings.max_new_tokens) for one in requests] if two_turns else []
    computed = prompt_tokens + sum(len(one.prompt_ids) for one in later) - facts.get("prompt_tokens_reused", 0)
    passes = 0 if job["engine"] == "drafted" else least_passes(requests, job["rows"]) * (2 if two_turns else 1)
    return {
        **job,
        "seconds": seconds,
        "load_seconds": loaded,
        "process_to_first_completion": first,
        "to_first_completion": to_first,
        "requests": len(counts),
        "prompt_tokens": prompt_tokens,
        "generated_tokens": sum(counts),
        "host_peak_bytes": host_peak_bytes(),
        "device_peaks": {name: device.as_dict() for name, device in device_peaks().items()},
        **job_limits(model, job["dtype"], computed, sum(counts), passes),
        "facts": facts,
    }


def least_passes(requests: Sequence[Request], rows: int) -> int:
    """How often all weights are read at least where a pass gives each of up to `rows` answers one token."""
    lengths = [request.settings.max_new_tokens or 0 for request in requests]
    return max(max(lengths, default=0), -(-sum(lengths) // rows))


def job_limits(model: Any, dtype: str, prompt_tokens: int, generated_tokens: int, passes: int) -> dict[str, float]:
    """What this machine can do at best, and the least time that the workload takes on it."""
    from batchchat.models.facts import model_facts
    from batchchat.reporting.limits import machine_limits

    limits = machine_limits(dtype, str(model.device))
    return {
        "least_seconds": least_seconds(model_facts(model), prompt_tokens, generated_tokens, passes, limits),
        "flops_per_second": limits.flops_per_second,
        "bytes_per_second": limits.bytes_per_second,
    }


def least_seconds(
    facts: ModelFacts, prompt_tokens: int, generated_tokens: int, passes: int, limits: MachineLimits
) -> float:
    """The time in which a machine could do a workload's multiplications, or read the weights for its passes, whichever
    takes it longer. Prompt tokens need no vocabulary product, and those that were taken over from earlier prompts
    nothing at all. Of a mixture of experts those count that one token passes through."""
    body, output = facts.flops_per_token or 0.0, facts.flops_per_output or 0.0
    multiplied = body * (prompt_tokens + generated_tokens) + output * generated_tokens
    bytes_each = (facts.footprint_bytes or 0) / max(1, facts.parameters or 0)
    read = passes * bytes_each * (body + output) / 2  # a weight is one multiplication and one addition
    return max(multiplied / limits.flops_per_second, read / limits.bytes_per_second)


def load(name: str, dtype: str) -> tuple[Any, Any]:
    """Model and codec of a shape, or of a model by its name."""
    from batchchat.benchmarks.shapes import SHAPES, shape_model, shape_tokenizer
    from batchchat.prompts import TokenizerCodec

    if name in SHAPES:
        return shape_model(name, dtype), TokenizerCodec(shape_tokenizer(name))
    from batchchat.models import load_model, load_text_side

    recipe = _recipe(name, dtype)
    return load_model(recipe.model), load_text_side(recipe).codec


def _recipe(name: str, dtype: str) -> Any:
    from batchchat.recipe import Recipe

    return Recipe.model_validate({"model": {"name": name, "dtype": dtype}, "source": {"path": "-"}})


if __name__ == "__main__":
    print(MARK + json.dumps(measure(json.loads(sys.argv[1]))), flush=True)
