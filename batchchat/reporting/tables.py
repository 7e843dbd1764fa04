"""The report as tables: for the terminal and as Markdown, from the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchchat.reporting.score_tables import score_tables

_PHASES_USED = ("prefill", "decode")

Table = tuple[str, list[tuple[str, str]]]


def report_tables(report: Mapping[str, Any]) -> list[Table]:
    """Titled lists of (what, figure); of scores alone where the report is of answers that another tool wrote."""
    if "rows" not in report:
        return score_tables(report)
    rows, session, memory = report["rows"], report["session"], report["memory"]
    result = [
        ("rows in", _count(rows["in"])),
        ("answered", _count(rows["answered"])),
        ("failed (errors.jsonl)", _count(rows["failed"])),
        ("turns written", _count(report["turns"])),
        ("finish reasons", ", ".join(f"{k} {_count(v)}" for k, v in report["finish_reasons"].items()) or "–"),
    ]
    if report["samples"]["answered"] + report["samples"]["failed"] != rows["in"]:
        result.insert(3, ("samples answered", _count(report["samples"]["answered"])))
    speed = [
        ("prompt tokens", _count(report["tokens"]["prompt"])),
        ("generated tokens", _count(report["tokens"]["generated"])),
    ]
    if session.get("batches"):
        speed += [
            ("generated tokens/s", _figure(session["generated_tokens_per_second"])),
            ("turns/s", _figure(session["turns_per_second"])),
            ("padding efficiency", _percent(session["padding_efficiency"])),
            ("batches, mean rows", f"{_count(session['batches'])}, {session['mean_batch_rows']:g}"),
        ]
    if report["latency_seconds"]:
        speed.append(("latency", ", ".join(f"{p} {s:.2f} s" for p, s in report["latency_seconds"].items())))
    phases = [(phase, f"{seconds:.2f} s") for phase, seconds in report["phases_seconds"].items() if seconds >= 0.005]
    phases.append(("wall", f"{report['wall_seconds']:.2f} s"))
    if len(report["sessions"]) > 1:
        phases.append(("sessions", str(len(report["sessions"]))))
    sizes = [("host, peak", bytes_text(memory["host_peak_bytes"]))]
    if memory["model_footprint_bytes"] is not None:
        sizes.append(("model", bytes_text(memory["model_footprint_bytes"])))
    active = report["engine"].get("active_parameters")
    if active is not None and "experts" in report["engine"]:
        sizes.append(("parameters, active", f"{_count(report['engine']['parameters'])}, {_count(active)}"))
    learned = report["engine"].get("learned_batch_tokens")
    if learned is not None:
        sizes.append(("batch tokens that fit", _count(learned)))
    for device, peaks in memory["devices"].items():
        sizes.append((f"{device}, peak allocated", bytes_text(peaks["peak_allocated_bytes"])))
        sizes.append((f"{device}, peak reserved", bytes_text(peaks["peak_reserved_bytes"])))
    tables = [
        ("Result", result),
        *score_tables(report),
        ("Throughput", speed),
        ("Time by phase", phases),
        ("Memory", sizes),
    ]
    drafts = report["engine"].get("drafts")
    if drafts is not None:
        tables.append(("Speculative decoding", _drafts(drafts)))
    used = report.get("utilisation") or {}
    if used:
        tables.append(("Use of the machine", [line for name in _PHASES_USED for line in _used(name, used.get(name))]))
    if report["events"]["counts"]:
        tables.append(("Events", [(name, _count(n)) for name, n in report["events"]["counts"].items()]))
    return tables


def _drafts(drafts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """`speed_up` is missing where steps without drafts were never tried."""
    lines = [("drafts by", drafts["by"])]
    if drafts["acceptance"] is not None:
        lines.append(("drafts accepted", f"{_percent(drafts['acceptance'])} of {_count(drafts['proposed'])} tokens"))
        lines.append(("tokens per row and step", f"{drafts['tokens_per_step']:.2f}"))
    if drafts["speed_up"] is not None:
        lines.append(("speed-up of steps with drafts", f"{drafts['speed_up']:.2f}"))
    lines.append(("steps without drafts", _count(drafts["steps_without"])))
    return lines


def _used(name: str, figures: Mapping[str, float] | None) -> list[tuple[str, str]]:
    if figures is None:
        return []
    lines = []
    for what, unit in (("flops_per_second", "GFLOP/s"), ("bytes_per_second", "GB/s")):
        share = figures.get(f"share_of_{what}")
        of = "" if share is None else f", {_percent(share)} of the device's limit"
        lines.append((name, f"{figures[what] / 1e9:,.2f} {unit}{of}"))
    return lines


def report_markdown(report: Mapping[str, Any]) -> str:
    """report.md."""
    lines = [f"# {report['name']}", ""]
    for title, rows in report_tables(report):
        lines += [f"## {title}", "", "| what | figure |", "|---|---|"]
        lines += [f"| {_cell(what)} | {_cell(figure)} |" for what, figure in rows]
        lines.append("")
    if report["missing"]:
        lines += ["## Not measured", ""]
        lines += [f"- `{what}`: {why}" for what, why in report["missing"].items()]
        lines.append("")
    lines += ["## Files", ""]
    lines += [f"- `{name}`" for name in report["files"]]
    return "\n".join(lines) + "\n"


def bytes_text(count: int) -> str:
    """A size with a binary unit."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("the last unit returns")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _count(value: int) -> str:
    return f"{value:,}"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
