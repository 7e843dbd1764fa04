"""The report of a run that is finished: what the store counted, what the meters measured, what the engine says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batchchat.chats import Settings
from batchchat.engines.facts import AnyEngineFacts
from batchchat.recipe import Recipe
from batchchat.reporting.about import about_run
from batchchat.reporting.limits import machine_limits
from batchchat.reporting.meters import Meters, device_peaks, host_peak_bytes
from batchchat.reporting.report import (
    Event,
    Events,
    Failure,
    Lengths,
    Memory,
    PastSession,
    Report,
    RowCounts,
    SampleCounts,
    Session,
    Shard,
    Simulation,
    TokenCounts,
    ToolUse,
)
from batchchat.reporting.scores import Histogram
from batchchat.reporting.utilisation import utilisation
from batchchat.reporting.watch import Watcher
from batchchat.scoring.distributions import histogram
from batchchat.store import RunDirectory, RunStore
from batchchat.store.totals import Totals
from batchchat.version import __version__

_MOST_REASONS = 3
PERCENTILES = (50.0, 90.0, 99.0)


def build_report(
    recipe: Recipe,
    manifest: Mapping[str, Any],
    store: RunStore,
    meters: Meters,
    watcher: Watcher,
    engine: AnyEngineFacts,
    directory: RunDirectory,
    files: Sequence[str],
    settings: Settings | None,
    user_engine: AnyEngineFacts | None = None,
    shards: Sequence[Shard] = (),
) -> Report:
    """Everything that is known about a finished run, its scores apart. `manifest` is that of this process, `settings`
    are those of a row without its own; None where it is for another report to say what answered."""
    wall, phases = meters.elapsed, dict(meters.seconds)  # measuring the machine, below, is no part of the run
    totals = store.totals()
    missing: dict[str, str] = {}
    latency = store.latencies(PERCENTILES)
    if latency is None:
        missing["latency_seconds"] = "no turn was written"
    devices = device_peaks()
    if not devices:
        missing["memory.devices"] = "this process used no accelerator"
    session = _session(meters, totals.sessions[-1]["completed"] if totals.sessions else 0)
    if not session.batches:
        missing["session"] = (
            "the engine does not say what it computed"
            if session.turns
            else "this process generated nothing: the run was complete before"
        )
    watcher.stop()
    if recipe.source.shard is not None and (recipe.metrics or recipe.gates or recipe.keep):
        missing["scoring"] = "scores and gates are of the whole, and this is a shard: batchchat merge computes them"
    used = utilisation(engine, machine_limits)
    if isinstance(used, str):
        missing["utilisation"] = used
    return Report(
        name=recipe.name,
        batchchat=__version__,
        directory=str(directory.path),
        files=tuple(files),
        about=None if settings is None else about_run(recipe, manifest, settings, engine.dtype or store.meta("dtype")),
        rows=RowCounts(in_=totals.rows, answered=totals.rows - totals.rows_failed, failed=totals.rows_failed),
        **_failures(store),
        samples=SampleCounts(answered=totals.samples_answered, failed=totals.samples_failed),
        turns=totals.turns,
        tokens=TokenCounts(prompt=totals.prompt_tokens, generated=totals.completion_tokens),
        **_simulation(recipe, store, totals, user_engine),
        tools=_tools(store),
        finish_reasons=totals.finish_reasons,
        latency_seconds=None if latency is None else {f"p{p:g}": round(s, 4) for p, s in latency.items()},
        lengths=_lengths(store),
        session=session,
        phases_seconds={phase: round(seconds, 3) for phase, seconds in phases.items()},
        wall_seconds=round(wall, 3),
        memory=Memory(host_peak_bytes=host_peak_bytes(), model_footprint_bytes=engine.footprint_bytes, devices=devices),
        engine=engine,
        events=Events(counts=dict(meters.num_events), first=tuple(Event(**event) for event in meters.events)),
        sessions=tuple(PastSession(**session) for session in totals.sessions),
        watch=watcher.recording(),
        utilisation=None if isinstance(used, str) else used,
        shards=tuple(shards),
        missing=missing | watcher.missing,
    )


def _failures(store: RunStore) -> dict[str, Any]:
    found = store.failures(_MOST_REASONS)
    failures = tuple(Failure(lines=count, reason=reason, first=str(place)) for count, reason, place in found)
    return {"failures": failures} if failures else {}


def _simulation(recipe: Recipe, store: RunStore, totals: Totals, engine: AnyEngineFacts | None) -> dict[str, Any]:
    """Both sides apart, where a model played the user."""
    if recipe.simulate is None:
        return {}
    user = store.user_totals()
    answers = totals.turns - user.turns
    prompt, generated = totals.prompt_tokens - user.prompt_tokens, totals.completion_tokens - user.completion_tokens
    found = Simulation(
        user_turns=user.turns,
        user_tokens=TokenCounts(prompt=user.prompt_tokens, generated=user.completion_tokens),
        assistant_turns=answers,
        assistant_tokens=TokenCounts(prompt=prompt, generated=generated),
        faults=user.faults,
        ended=user.ended,
        engine=engine,
    )
    return {"simulation": found}


def _tools(store: RunStore) -> dict[str, ToolUse]:
    return {
        name: ToolUse(
            calls=used.calls,
            failed=used.failed,
            seconds=round(used.seconds, 4),
            longest_seconds=round(used.longest, 4),
        )
        for name, used in store.tool_totals().items()
    }


def _lengths(store: RunStore) -> Lengths | None:
    """None where no turn was written."""
    prompts, answers = (histogram({float(n): count for n, count in found.items()}) for found in store.lengths())
    if prompts is None or answers is None:
        return None
    return Lengths(prompt=Histogram.of(prompts), answer=Histogram.of(answers))


def _session(meters: Meters, turns: int) -> Session:
    seconds = meters.seconds["generate"]
    batches = sum(meters.batch_rows.values())
    if not batches:
        return Session(turns=turns)
    rows = sum(rows * count for rows, count in meters.batch_rows.items())
    true_tokens = meters.prompt_tokens + meters.generated_tokens
    return Session(
        turns=turns,
        prompt_tokens=meters.prompt_tokens,
        generated_tokens=meters.generated_tokens,
        generated_tokens_per_second=round(meters.generated_tokens / seconds, 2) if seconds else None,
        total_tokens_per_second=round(true_tokens / seconds, 2) if seconds else None,
        turns_per_second=round(turns / seconds, 3) if seconds else None,
        padding_efficiency=round(true_tokens / meters.padded_tokens, 4) if meters.padded_tokens else None,
        batches=batches,
        mean_batch_rows=round(rows / batches, 2),
        batch_rows={str(size): count for size, count in sorted(meters.batch_rows.items())},
    )
