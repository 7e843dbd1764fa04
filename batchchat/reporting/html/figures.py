"""The plots of a report: which there are, and what each says in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batchchat.reporting.html.plots import Curve, Plot, calibration, distribution, over_time, shares
from batchchat.reporting.report import AnyReport, Recording, Report
from batchchat.scoring.distributions import ConfidenceBin, calibration_error

_GIB = 2**30


def work_plots(report: Report) -> list[Plot]:
    """What the run computed and what it took."""
    found = [*_over_time(report.watch)] if report.watch is not None else []
    if report.lengths is not None:
        caption = "Each turn's whole prompt counts, earlier turns included, without padding."
        found.append(distribution("Length of prompts", "prompts", "tokens", report.lengths.prompt, caption))
        caption = "Tokens that were written, the end token included. A peak at the right edge often is the token limit."
        found.append(distribution("Length of answers", "answers", "tokens", report.lengths.answer, caption))
    reasons = {name: float(count) for name, count in report.finish_reasons.items()}
    caption = "stop: the model ended its turn. length: it ran into the token limit. stop_string: into one of `stop`."
    phases = "Phases exclude each other: reading while the engine waits counts as read. Of the last process."
    for plot in (
        shares("Why answers ended", "turns", reasons, caption),
        shares("Time by phase", "s", report.phases_seconds, phases),
    ):
        if plot is not None:
            found.append(plot)
    return found


def score_plots(report: AnyReport) -> list[Plot]:
    """How scores are distributed, and whether the model knows when it is right."""
    found = []
    for name, metric in report.scoring.metrics.items() if report.scoring is not None else ():
        if metric.histogram is not None:
            caption = "Scores in the mean, those included that a treatment counts as wrong."
            found.append(distribution(f"Scores of {name}", "answers", "score", metric.histogram, caption))
        if metric.calibration:
            bins = [ConfidenceBin(one.confidence, one.score, one.n) for one in metric.calibration]
            error = calibration_error(bins)
            caption = (
                "Confidence is the geometric mean of the probabilities of an answer's tokens. On the dashed line the "
                f"model is right as often as it is sure; expected calibration error {error:.3f}."
            )
            found.append(calibration(f"Confidence and {name}", metric.calibration, caption))
    return found


def _over_time(watch: Recording) -> Iterator[Plot]:
    columns = watch.columns
    seconds = [x or 0.0 for x in columns.get("seconds", ())]
    speed = {
        name: _rate(seconds, columns[column], seconds)
        for name, column in (("answers", "generated_tokens"), ("prompts", "prompt_tokens"))
        if column in columns
    }
    rows = _rate(seconds, columns["batch_rows"], columns["batches"]) if "batches" in columns else []
    memory = {
        "host" if name == "host_bytes" else name.removesuffix("_bytes"): _scaled(seconds, values, 1 / _GIB)
        for name, values in columns.items()
        if name.endswith("_bytes")
    }
    busy = {
        "host, all cores" if name == "host_cpu_percent" else name.removesuffix("_percent"): _scaled(seconds, values, 1)
        for name, values in columns.items()
        if name.endswith("_percent")
    }
    every = f"One point every {watch.interval_seconds:g} s."
    for plot in (
        over_time("Tokens per second", "tokens/s", speed, f"Without padding, prompts and answers apart. {every}"),
        over_time("Rows in flight", "rows", {"rows": rows}, f"Chats that a step computed, in the mean. {every}"),
        over_time("Memory", "GiB", memory, f"Of the process, and what is in use on each device. {every}"),
        over_time("Load", "%", busy, f"100 % is one core of the host, or one whole device. {every}"),
    ):
        if plot is not None:
            yield plot


def _rate(
    seconds: Sequence[float], count: Sequence[float | None], per: Sequence[float | None] | Sequence[float]
) -> Curve:
    """How much `count` grew for each one that `per` grew by, between neighbouring points; 0 where `per` stood still."""
    found: list[tuple[float, float | None]] = []
    for place in range(1, len(seconds)):
        grown, by = _growth(count, place), _growth(per, place)
        found.append((seconds[place], None if grown is None or by is None else grown / by if by > 0 else 0.0))
    return found


def _growth(values: Sequence[float | None], place: int) -> float | None:
    before, now = values[place - 1], values[place]
    return None if before is None or now is None else now - before


def _scaled(seconds: Sequence[float], values: Sequence[float | None], scale: float) -> Curve:
    return [(x, None if y is None else y * scale) for x, y in zip(seconds, values, strict=True)]
