"""Engines side by side: each measured in a process of its own, in turns, so that what else the machine does falls on
all of them alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from batchchat.benchmarks.peers import PEERS, check_peers, peer_command, prepare_peers, scratch
from batchchat.benchmarks.results import Result, add_ratios, markdown, middle
from batchchat.benchmarks.worker import MARK
from batchchat.errors import EnvironmentFault

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
    peers: Mapping[str, str] | None = None,
) -> list[Result]:
    """Per engine the middle one of `rounds` measurements; `ratio` is its tokens per second to the first engine's. Of an
    engine that fails there is only why, as `failed`; all others are measured nevertheless. Raises EnvironmentFault
    where none is left.

    `peers`: programs to the paths of their environments, for those among the engines.
    """
    peers = peers or {}
    check_peers(engines, peers, workload)
    job = {"model": model, "dtype": dtype, "rows": rows, "workload": workload}
    found: dict[str, list[Result]] = {engine: [] for engine in engines}
    failed: dict[str, EnvironmentFault] = {}
    with scratch() as name:
        folder = Path(name)
        known = _prepared([engine for engine in engines if engine in PEERS], job, peers, folder, progress, failed)
        for number in range(rounds):
            for engine in (one for one in engines if one not in failed):
                progress(f"round {number + 1} of {rounds}: {engine}")
                command = _command({"engine": engine, **job}, peers, folder)
                with _left_out(engine, failed, progress):
                    found[engine].append({"engine": engine, **job, **_measured(engine, command)})
            if len(failed) == len(engines):
                raise failed[engines[0]]
    chosen = [middle(found[engine], "seconds") for engine in engines if engine not in failed]
    own = next((result for result in chosen if "least_seconds" in result), known)
    for result in chosen:
        for what in ("least_seconds", "flops_per_second", "bytes_per_second"):
            result.setdefault(what, own[what])
        result["tokens_per_second"] = result["generated_tokens"] / result["seconds"]
        result["share_of_limit"] = result["least_seconds"] / result["seconds"]
    add_ratios(chosen)
    return [*chosen, *({"engine": engine, "failed": str(fault)} for engine, fault in failed.items())]


def table(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    failed = [result for result in results if "failed" in result]
    results = [result for result in results if "failed" not in result]
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
    told = {result["engine"]: result["facts"] for result in results if result["engine"] in PEERS}
    differences = [f"{engine} {facts['version']}: {facts['numbers']}" for engine, facts in told.items()]
    if differences:
        lines += ["", f"{'; '.join(differences)}."]
    lines += [f"{one['engine']}: {_ABOVE}." for one in results if one["share_of_limit"] > 1]
    lines += [f"{one['engine']} was not measured: {one['failed']}." for one in failed]
    return "\n".join(lines)


def _prepared(
    engines: Sequence[str],
    job: dict[str, Any],
    peers: Mapping[str, str],
    folder: Path,
    progress: Callable[[str], None],
    failed: dict[str, EnvironmentFault],
) -> Result:
    """Make what peers read, once for all rounds and outside of what is measured. Who cannot is among the `failed`."""
    if not engines:
        return {}
    progress(f"writing the model for {', '.join(engines)}")
    known = prepare_peers(engines, job, folder)
    for engine in engines:
        if PEERS[engine].prepares:
            with _left_out(engine, failed, progress):
                _run(engine, [*_command({"engine": engine, **job}, peers, folder), "prepare"])
    return known


@contextmanager
def _left_out(engine: str, failed: dict[str, EnvironmentFault], progress: Callable[[str], None]) -> Iterator[None]:
    """An engine that fails within is told of, and is among the `failed`."""
    try:
        yield
    except EnvironmentFault as fault:
        progress(str(fault))
        failed[engine] = fault


def _command(job: dict[str, Any], peers: Mapping[str, str], folder: Path) -> list[str]:
    if job["engine"] not in PEERS:
        written = folder / "model"
        given = {**job, "folder": str(written)} if written.exists() else job  # read as the peers read it
        return [sys.executable, "-m", "batchchat.benchmarks.worker", json.dumps(given)]
    import torch

    return peer_command(job, peers, MARK, folder, torch.get_num_threads())


def _measured(engine: str, command: list[str]) -> Result:
    said = _run(engine, command)
    for line in said.splitlines():
        if line.startswith(MARK):
            result: Result = json.loads(line[len(MARK) :])
            return result
    raise EnvironmentFault(f"the measurement of {engine} said nothing; leave it out")


def _run(engine: str, command: list[str]) -> str:
    """What a process of a measurement prints. Raises EnvironmentFault with its last words where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise EnvironmentFault(f"{command[0]} cannot be run ({error.strerror}); leave {engine} out") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFault(f"the measurement of {engine} ended with {done.returncode} ({last}); leave it out")
    return done.stdout
