"""A recipe's own job, run whole by several engines, each in a process of its own, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

from batchchat.benchmarks.peers import scratch
from batchchat.errors import EnvironmentFault, UsageError

RUN_ENGINES: dict[str, tuple[str, ...]] = {
    "pipeline": ("engine.kind=pipeline",),
    "continuous": ("engine.kind=continuous",),
    "strict": ("engine.kind=continuous", "engine.reproducible=strict"),
}
"""Engines that a recipe can be run with, and the overrides that choose them."""

_COLUMNS = ("engine", "seconds", "of them generating", "tokens/s", "ratio", "chats", "failed", "peak memory")


def compare_runs(
    recipe: Path,
    engines: Sequence[str],
    *,
    rows: int,
    rounds: int,
    limit: int | None,
    progress: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Per engine the report of the middle one of `rounds` runs, by tokens per second; `ratio` is to the first engine.

    Only the first `limit` rows are answered, `rows` of them at once. Nothing is left behind.
    """
    for engine in engines:
        if engine not in RUN_ENGINES:
            raise UsageError(f"a recipe cannot be run with {engine}; choose among {', '.join(RUN_ENGINES)}")
    found: dict[str, list[dict[str, Any]]] = {engine: [] for engine in engines}
    with scratch() as folder:
        for number in range(rounds):
            for engine in engines:
                progress(f"round {number + 1} of {rounds}: {engine}")
                found[engine].append(_run(recipe, engine, Path(folder) / f"{engine}-{number}", rows, limit))
    middle = [_middle(found[engine]) for engine in engines]
    for result in middle:
        result["ratio"] = result["tokens_per_second"] / middle[0]["tokens_per_second"]
    return middle


def runs_table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
    for result in results:
        report = result["report"]
        cells = (
            result["engine"],
            f"{report['wall_seconds']:.1f}",
            f"{report['phases_seconds']['generate']:.1f}",
            f"{result['tokens_per_second']:.0f}",
            f"{result['ratio']:.2f}",
            f"{report['rows']['in']:,}",
            f"{report['rows']['failed']:,}",
            f"{report['memory']['host_peak_bytes'] / 1e9:.1f} GB",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _run(recipe: Path, engine: str, directory: Path, rows: int, limit: int | None) -> dict[str, Any]:
    overrides = [*RUN_ENGINES[engine], f"engine.max_batch_rows={rows}", f"sink.directory={json.dumps(str(directory))}"]
    if limit is not None:
        overrides.append(f"source.limit={limit}")
    command = [sys.executable, "-m", "batchchat", "run", str(recipe), "--json", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFault(
            f"the run with {engine} ended with {done.returncode} ({last}); run the recipe itself first"
        )
    report = json.loads(done.stdout)
    speed = report["session"].get("generated_tokens_per_second")
    if not speed:
        raise EnvironmentFault(f"the run with {engine} generated nothing; run the recipe itself first")
    return {"engine": engine, "tokens_per_second": speed, "report": report}


def _middle(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    wanted = median_low([result["tokens_per_second"] for result in results])
    return next(result for result in results if result["tokens_per_second"] == wanted)
