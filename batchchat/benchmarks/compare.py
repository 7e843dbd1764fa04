"""Engines side by side: each measured in a process of its own, in turns, so that what else the machine does falls on
all of them alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from batchchat.benchmarks.peers import scratch, vllm_command
from batchchat.benchmarks.results import Result, add_ratios, markdown, middle
from batchchat.benchmarks.worker import MARK
from batchchat.errors import EnvironmentFault, UsageError

_COLUMNS = (
    "engine",
    "seconds",
    "tokens/s",
    "ratio",
    "s to first completion",
    "s from process start",
    "peak memory",
    "of the limit",
)


_ABOVE = "above 100%, since the machine multiplied more slowly when its limit was measured: something else ran on it"


def compare_engines(
    engines: Sequence[str],
    *,
    model: str,
    dtype: str,
    rows: int,
    workload: str,
    rounds: int,
    progress: Callable[[str], None],
    vllm_python: str | None = None,
) -> list[Result]:
    """Per engine the middle one of `rounds` measurements; `ratio` is its tokens per second to the first engine's.

    `vllm_python`: the Python of an environment with vLLM, where that is among the engines.
    """
    if set(engines) == {"vllm"}:
        raise UsageError(
            "vLLM is measured beside an engine of batchchat; add one, for example --engines continuous,vllm"
        )
    found: dict[str, list[Result]] = {engine: [] for engine in engines}
    for number in range(rounds):
        for engine in engines:
            progress(f"round {number + 1} of {rounds}: {engine}")
            job = {"engine": engine, "model": model, "dtype": dtype, "rows": rows, "workload": workload}
            found[engine].append(_measured(job, vllm_python))
    chosen = [middle(found[engine], "seconds") for engine in engines]
    known = next(result for result in chosen if "least_seconds" in result)
    for result in chosen:
        for what in ("least_seconds", "flops_per_second", "bytes_per_second"):
            result.setdefault(what, known[what])
        result["tokens_per_second"] = result["generated_tokens"] / result["seconds"]
        result["share_of_limit"] = result["least_seconds"] / result["seconds"]
    add_ratios(chosen)
    return chosen


def table(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    rows = (
        (
            result["engine"],
            f"{result['seconds']:.1f}",
            f"{result['tokens_per_second']:.0f}",
            f"{result['ratio']:.2f}",
            f"{result['to_first_completion']:.1f}",
            f"{result['process_to_first_completion']:.1f}",
            f"{result['host_peak_bytes'] / 1e9:.1f} GB",
            f"{result['share_of_limit']:.0%}",
        )
        for result in results
    )
    lines = markdown(_COLUMNS, rows)
    first = results[0]
    counts = f"{first['requests']} answers, {first['prompt_tokens']} prompt and {first['generated_tokens']} new tokens"
    flops, read = first["flops_per_second"] / 1e9, first["bytes_per_second"] / 1e9
    limits = f"this machine multiplies at {flops:.0f} GFLOP/s in {first['dtype']} and reads {read:.0f} GB/s"
    lines += ["", f"{counts}; {limits}."]
    lines += [f"{one['engine']}: {_ABOVE}." for one in results if one["share_of_limit"] > 1]
    return "\n".join(lines)


def _measured(job: dict[str, Any], vllm_python: str | None) -> Result:
    with scratch() as folder:
        if job["engine"] == "vllm":
            command = vllm_command(job, vllm_python, MARK, Path(folder))
        else:
            command = [sys.executable, "-m", "batchchat.benchmarks.worker", json.dumps(job)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise UsageError(f"{command[0]} cannot be run ({error.strerror}); give --vllm-python a Python") from error
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            return {**job, **json.loads(line[len(MARK) :])}
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    raise EnvironmentFault(f"the measurement of {job['engine']} ended with {done.returncode} ({last}); leave it out")
