"""A recipe's own job, run whole in several ways, each in a process of its own, in turns."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from batchchat.benchmarks.peers import scratch
from batchchat.benchmarks.results import Result, add_ratios, markdown, middle
from batchchat.errors import EnvironmentFault, UsageError
from batchchat.reporting.report import Report

RUN_ENGINES: dict[str, tuple[str, ...]] = {
    "pipeline": ("engine.kind=pipeline",),
    "continuous": ("engine.kind=continuous",),
    "strict": ("engine.kind=continuous", "engine.reproducible=strict"),
}
"""Engines that a recipe can be run with, and the overrides that choose them."""

_COLUMNS = ("run", "seconds", "of them generating", "tokens/s", "ratio", "chats", "failed", "model", "peak memory")


def engine_variants(engines: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Variants of a recipe by the names of engines. Raises UsageError for one that recipes cannot be run with."""
    for engine in engines:
        if engine not in RUN_ENGINES:
            raise UsageError(f"a recipe cannot be run with {engine}; choose among {', '.join(RUN_ENGINES)}")
    return {engine: RUN_ENGINES[engine] for engine in engines}


def time_recipes(
    recipe: str,
    variants: Mapping[str, Sequence[str]],
    *,
    rounds: int,
    limit: int | None,
    progress: Callable[[str], None],
) -> list[Result]:
    """Per variant (a name, and overrides of the recipe) the report of the middle one of `rounds` runs, by tokens per
    second; `ratio` is to the first variant. Only the first `limit` rows are answered. Nothing is left behind.
    """
    found: dict[str, list[Result]] = {name: [] for name in variants}
    with scratch() as folder:
        for number in range(rounds):
            for place, (name, overrides) in enumerate(variants.items()):
                progress(f"round {number + 1} of {rounds}: {name}")
                given = [*overrides, *([] if limit is None else [f"source.limit={limit}"])]
                found[name].append(_run(recipe, name, given, Path(folder) / f"{place}-{number}"))
    chosen = [middle(found[name], "tokens_per_second") for name in variants]
    add_ratios(chosen)
    return chosen


def runs_table(results: Sequence[Result]) -> str:
    """The results as Markdown."""
    rows = []
    for result in results:
        report = Report.model_validate(result["report"])
        footprint = report.memory.model_footprint_bytes
        cells = (
            result["run"],
            f"{report.wall_seconds:.1f}",
            f"{report.phases_seconds['generate']:.1f}",
            f"{result['tokens_per_second']:.0f}",
            f"{result['ratio']:.2f}",
            f"{report.rows.in_:,}",
            f"{report.rows.failed:,}",
            "–" if footprint is None else f"{footprint / 1e6:,.0f} MB",
            f"{report.memory.host_peak_bytes / 1e9:.1f} GB",
        )
        rows.append(cells)
    return "\n".join(markdown(_COLUMNS, rows))


def _run(recipe: str, name: str, overrides: Sequence[str], directory: Path) -> Result:
    place = f"sink.directory={json.dumps(str(directory))}"
    command = [sys.executable, "-m", "batchchat", "run", recipe, "--json", *overrides, place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise EnvironmentFault(f"the run of {name} ended with {done.returncode} ({last}); run the recipe itself first")
    report = Report.model_validate_json(done.stdout)
    speed = report.session.generated_tokens_per_second
    if not speed:
        raise EnvironmentFault(f"the run of {name} generated nothing; run the recipe itself first")
    return {"run": name, "tokens_per_second": speed, "report": report.as_dict()}
