"""The report of a run: one plain mapping that the JSON file, the Markdown file and the terminal are rendered from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.reporting.meters import Meters, device_peaks, host_peak_bytes
from batchchat.store import RunDirectory, RunStore
from batchchat.version import __version__

PERCENTILES = (50.0, 90.0, 99.0)


def build_report(
    name: str,
    store: RunStore,
    meters: Meters,
    engine: Mapping[str, Any],
    directory: RunDirectory,
    files: list[str],
) -> dict[str, Any]:
    """Everything that is known about a finished run. `rows`, `tokens` and `sessions` count the whole run, however
    often it was interrupted; `session` is what this process did, which is what speed can be said of. A figure that
    could not be measured is null and `missing` says why."""
    totals = store.totals()
    missing: dict[str, str] = {}
    latency = store.latencies(PERCENTILES)
    if latency is None:
        missing["latency_seconds"] = "no turn was written"
    devices = device_peaks()
    if not devices:
        missing["memory.devices"] = "this process used no accelerator"
    return {
        "name": name,
        "batchchat": __version__,
        "directory": str(directory.path),
        "files": files,
        "rows": {"in": totals.rows, "answered": totals.rows - totals.rows_failed, "failed": totals.rows_failed},
        "samples": {"answered": totals.samples_answered, "failed": totals.samples_failed},
        "turns": totals.turns,
        "tokens": {"prompt": totals.prompt_tokens, "generated": totals.completion_tokens},
        "finish_reasons": totals.finish_reasons,
        "latency_seconds": None if latency is None else {f"p{p:g}": round(s, 4) for p, s in latency.items()},
        "session": _session(meters, totals.sessions[-1]["completed"] if totals.sessions else 0, missing),
        "phases_seconds": {phase: round(seconds, 3) for phase, seconds in meters.seconds.items()},
        "wall_seconds": round(meters.elapsed, 3),
        "memory": {
            "host_peak_bytes": host_peak_bytes(),
            "model_footprint_bytes": engine.get("footprint_bytes"),
            "devices": devices,
        },
        "engine": dict(engine),
        "events": {"counts": dict(meters.num_events), "first": meters.events},
        "sessions": totals.sessions,
        "missing": missing,
    }


def _session(meters: Meters, turns: int, missing: dict[str, str]) -> dict[str, Any]:
    seconds = meters.seconds["generate"]
    batches = sum(meters.batch_rows.values())
    if not batches:
        missing["session"] = "this process generated nothing: the run was complete before"
        return {"turns": turns}
    rows = sum(rows * count for rows, count in meters.batch_rows.items())
    true_tokens = meters.prompt_tokens + meters.generated_tokens
    return {
        "turns": turns,
        "prompt_tokens": meters.prompt_tokens,
        "generated_tokens": meters.generated_tokens,
        "generated_tokens_per_second": round(meters.generated_tokens / seconds, 2) if seconds else None,
        "total_tokens_per_second": round(true_tokens / seconds, 2) if seconds else None,
        "turns_per_second": round(turns / seconds, 3) if seconds else None,
        "padding_efficiency": round(true_tokens / meters.padded_tokens, 4) if meters.padded_tokens else None,
        "batches": batches,
        "mean_batch_rows": round(rows / batches, 2),
        "batch_rows": {str(size): count for size, count in sorted(meters.batch_rows.items())},
    }
