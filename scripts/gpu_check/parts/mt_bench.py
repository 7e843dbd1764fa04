"""A whole job: the recipe `mt-bench` with the built-in model, run in all the ways there are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from batchchat.benchmarks.runs import time_recipes
from batchchat.reporting.report import Report
from scripts.gpu_check.bench import Bench
from scripts.gpu_check.findings import Finding, tried

_ROOT = Path(__file__).resolve().parents[3]
_QUESTIONS = [
    _ROOT / "shared/data/mt_bench/question.jsonl",
    _ROOT.parent / "shared/data/mt_bench/question.jsonl",
    _ROOT / "data/samples/mt_bench.jsonl",
]
"""The first of these that is there is answered: the whole set, or the sample that comes along."""
_WAYS = {
    "continuous": ("engine.kind=continuous",),
    "strict": ("engine.kind=continuous", "engine.reproducible=strict"),
    "pipeline": ("engine.kind=pipeline",),
}


def run(bench: Bench) -> Iterator[Finding]:
    source = next(path for path in _QUESTIONS if path.is_file())
    for name, overrides in bench.pick(list(_WAYS.items()), list(_WAYS.items())[:1]):
        given = (f"source.path={source}", *overrides)
        limit = bench.pick(None, 2)
        (found,) = time_recipes("builtin:mt-bench", {name: given}, rounds=1, limit=limit, progress=lambda _: None)
        report = Report.model_validate(found["report"])
        energy = report.watch.energy_joules if report.watch is not None else None
        figures = {
            "chats": report.rows.in_,
            "failed": report.rows.failed,
            "seconds": report.wall_seconds,
            "tokens/s": found["tokens_per_second"],
            "J": None if not energy else sum(energy.values()),
        }
        yield tried(name, report.rows.failed == 0 and report.rows.answered == report.rows.in_, figures)
