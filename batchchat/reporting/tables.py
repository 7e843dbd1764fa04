"""The report as tables: for the terminal and as Markdown, from the same rows."""

from __future__ import annotations

from batchchat.engines.facts import ContinuousFacts, DraftFacts, EndpointFacts, ReplicaFacts
from batchchat.reporting.about import about_rows, provenance_rows
from batchchat.reporting.escape import printable
from batchchat.reporting.report import (
    AnyReport,
    PhaseUse,
    Report,
    ScoreReport,
    Shard,
    Simulation,
    TokenCounts,
    ToolUse,
    Utilisation,
)
from batchchat.reporting.score_tables import Table, score_tables


def report_tables(report: AnyReport) -> list[Table]:
    """Titled lists of (what, figure); of scores alone where the report is of answers that another tool wrote."""
    if isinstance(report, ScoreReport):
        about = report.about
        ran = [] if about is None else [("What ran", provenance_rows(about, report.batchchat))]
        return [*score_tables(report), *ran]
    tables = [
        ("Result", _result(report)),
        *([("Why rows failed", _failures(report))] if report.failures else []),
        *([("Simulated chats", _simulation(report.simulation))] if report.simulation is not None else []),
        *([("Tools", [_tool(name, used) for name, used in report.tools.items()])] if report.tools else []),
        *score_tables(report),
        ("Throughput", _throughput(report)),
        ("Time by phase", _phases(report)),
        ("Memory", _memory(report)),
    ]
    engine, used = report.engine, report.utilisation
    if isinstance(engine, ContinuousFacts) and engine.drafts is not None:
        tables.append(("Speculative decoding", _drafts(engine.drafts)))
    if isinstance(engine, EndpointFacts):
        tables.append(("Server", _server(engine)))
    if engine.replicas:
        again = [("restarts", _count(engine.replica_restarts))] if engine.replica_restarts else []
        tables.append(("Replicas", [*(_replica(number, one) for number, one in enumerate(engine.replicas)), *again]))
    if report.shards:
        tables.append(("Shards", [_shard(one) for one in report.shards]))
    if used is not None:
        tables.append(("Use of the machine", _use(used)))
    if report.events.counts:
        tables.append(("Events", [(name, _count(n)) for name, n in report.events.counts.items()]))
    if report.about is not None:
        tables.append(("What ran", about_rows(report.about, report.batchchat)))
    return tables


def failure_lines(report: Report) -> list[str]:
    """Why rows failed, in words: the commonest reasons with their counts."""
    return [f"{count} {reason}" for count, reason in _failures(report)]


def _failures(report: Report) -> list[tuple[str, str]]:
    return [(f"{_count(found.lines)} ×", f"{printable(found.reason)} ({found.first})") for found in report.failures]


def _result(report: Report) -> list[tuple[str, str]]:
    rows, samples = report.rows, report.samples
    lines = [
        ("rows in", _count(rows.in_)),
        ("answered", _count(rows.answered)),
        ("failed (errors.jsonl)", _count(rows.failed)),
        ("turns written", _count(report.turns)),
        ("finish reasons", ", ".join(f"{k} {_count(v)}" for k, v in report.finish_reasons.items()) or "–"),
    ]
    if samples.answered + samples.failed != rows.in_:
        lines.insert(3, ("samples answered", _count(samples.answered)))
    return lines


def _simulation(found: Simulation) -> list[tuple[str, str]]:
    def side(turns: int, tokens: TokenCounts) -> str:
        return f"{_count(turns)} turns, {_count(tokens.prompt)} prompt and {_count(tokens.generated)} generated tokens"

    lines = [
        ("user", side(found.user_turns, found.user_tokens)),
        ("assistant", side(found.assistant_turns, found.assistant_tokens)),
        ("chats ended by", ", ".join(f"{kind} {_count(n)}" for kind, n in found.ended.items()) or "–"),
    ]
    if found.faults:
        lines.append(("user turns not used", ", ".join(f"{kind} {_count(n)}" for kind, n in found.faults.items())))
    return lines


def _tool(name: str, used: ToolUse) -> tuple[str, str]:
    times = f"{used.seconds / used.calls:.3f} s in the mean, {used.longest_seconds:.3f} s at most"
    return printable(name), f"{_count(used.calls)} calls, {_count(used.failed)} failed, {times}"


def _throughput(report: Report) -> list[tuple[str, str]]:
    session = report.session
    lines = [
        ("prompt tokens", _count(report.tokens.prompt)),
        ("generated tokens", _count(report.tokens.generated)),
    ]
    if session.batches:
        lines += [
            ("generated tokens/s", _figure(session.generated_tokens_per_second)),
            ("turns/s", _figure(session.turns_per_second)),
            ("padding efficiency", _percent(session.padding_efficiency)),
            ("batches, mean rows", f"{_count(session.batches)}, {session.mean_batch_rows:g}"),
        ]
    if report.latency_seconds:
        lines.append(("latency", ", ".join(f"{p} {s:.2f} s" for p, s in report.latency_seconds.items())))
    return lines


def _phases(report: Report) -> list[tuple[str, str]]:
    lines = [(phase, f"{seconds:.2f} s") for phase, seconds in report.phases_seconds.items() if seconds >= 0.005]
    lines.append(("wall", f"{report.wall_seconds:.2f} s"))
    if len(report.sessions) > 1:
        lines.append(("sessions", str(len(report.sessions))))
    return lines


def _memory(report: Report) -> list[tuple[str, str]]:
    memory, engine = report.memory, report.engine
    lines = [("host, peak", bytes_text(memory.host_peak_bytes))]
    if memory.model_footprint_bytes is not None:
        lines.append(("model", bytes_text(memory.model_footprint_bytes)))
    if isinstance(engine, ContinuousFacts) and engine.products:
        held = sum(product.held_bytes for product in engine.products)
        ways = dict.fromkeys(f"{one.weights} by {one.by}, in {one.arithmetic}" for one in engine.products)
        lines.append(("weights, laid out for the processor", f"{bytes_text(held)}: {'; '.join(ways)}"))
    if engine.experts is not None and engine.parameters is not None and engine.active_parameters is not None:
        lines.append(("parameters, active", f"{_count(engine.parameters)}, {_count(engine.active_parameters)}"))
    if engine.learned_batch_tokens is not None:
        lines.append(("batch tokens that fit", _count(engine.learned_batch_tokens)))
    for name, device in memory.devices.items():
        lines.append((f"{name}, peak allocated", bytes_text(device.peak_allocated_bytes)))
        lines.append((f"{name}, peak reserved", bytes_text(device.peak_reserved_bytes)))
    return lines


def _replica(number: int, one: ReplicaFacts) -> tuple[str, str]:
    said = [f"{_count(one.answered)} answered", f"busy {_percent(one.busy)}"]
    if one.restarts or one.lost:
        said.append(f"restarts {_count(one.restarts)}, requests handed to others {_count(one.lost)}")
    if one.given_up is not None:
        said.append(f"given up: it {one.given_up}")
    return f"{number} on {one.place}", ", ".join(said)


def _shard(one: Shard) -> tuple[str, str]:
    speed = one.generated_tokens_per_second
    rows = f"{_count(one.rows.in_)} rows, {_count(one.rows.failed)} failed, {_count(one.generated_tokens)} tokens"
    return one.shard, rows if speed is None else f"{rows}, {_figure(speed)} tokens/s"


def _drafts(drafts: DraftFacts) -> list[tuple[str, str]]:
    lines = [("drafts by", drafts.by)]
    if drafts.acceptance is not None:
        lines.append(("drafts accepted", f"{_percent(drafts.acceptance)} of {_count(drafts.proposed)} tokens"))
    if drafts.tokens_per_step is not None:
        lines.append(("tokens per row and step", f"{drafts.tokens_per_step:.2f}"))
    if drafts.speed_up is not None:
        lines.append(("speed-up of steps with drafts", f"{drafts.speed_up:.2f}"))
    lines.append(("steps without drafts", _count(drafts.steps_without)))
    return lines


def _server(facts: EndpointFacts) -> list[tuple[str, str]]:
    limits = [change.limit for change in facts.concurrency]
    lines = [
        ("model, as it calls it", facts.served_model or "–"),
        ("in flight, most and last", f"{_count(max(limits, default=0))}, {_count(limits[-1] if limits else 0)}"),
        ("sent again", _count(facts.retries)),
        ("refused as too many", _count(facts.refusals)),
    ]
    if facts.cost is not None:
        allowed = "" if facts.cost.allowed is None else f" of {facts.cost.allowed:,.2f}"
        lines.append(("spent", f"{facts.cost.spent:,.4f}{allowed}"))
        if facts.cost.unconfirmed:
            lines.append(("perhaps charged besides, at most", f"{facts.cost.unconfirmed:,.4f}"))
    return lines


def _use(used: Utilisation) -> list[tuple[str, str]]:
    lines = [*_used("prefill", used.prefill), *_used("decode", used.decode)]
    if used.limits is not None:
        best = f"{used.limits.flops_per_second / 1e9:,.0f} GFLOP/s, {used.limits.bytes_per_second / 1e9:,.0f} GB/s"
        lines.append(("the device at its best", best))
        lines.append(("what a share means", _MEANING))
    return lines


_MEANING = (
    "steps of few rows wait for weights to be read (GB/s), those of many rows and prompts for arithmetic (GFLOP/s): "
    "the larger share of a phase says how near it is to what this device can do"
)


def _used(name: str, phase: PhaseUse | None) -> list[tuple[str, str]]:
    if phase is None:
        return []
    figures = (
        (phase.flops_per_second, "GFLOP/s", phase.share_of_flops_per_second),
        (phase.bytes_per_second, "GB/s", phase.share_of_bytes_per_second),
    )
    lines = [
        (name, f"{rate / 1e9:,.2f} {unit}" + ("" if share is None else f", {_percent(share)} of the device's limit"))
        for rate, unit, share in figures
    ]
    return lines if phase.above_limit is None else [*lines, (f"{name}, above the limit", phase.above_limit)]


def bytes_text(count: int) -> str:
    """A size with a binary unit."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("the last unit returns")


def _count(value: int) -> str:
    return f"{value:,}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
