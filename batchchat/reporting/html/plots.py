"""The kinds of plots of a report, from plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from batchchat.reporting.html.numbers import short, ticks
from batchchat.reporting.html.svg import WIDTH, Axes, Drawing
from batchchat.reporting.scores import Calibrated, Histogram

_FEWEST_BINS = 7

Curve = Sequence[tuple[float, float | None]]


@dataclass(frozen=True)
class Plot:
    """An image with its title, what it shows in words, and what its colours mean."""

    title: str
    image: Markup
    caption: str
    legend: Sequence[str] = field(default=())


def over_time(title: str, unit: str, curves: Mapping[str, Curve], caption: str) -> Plot | None:
    """Curves over seconds since the start; None where no two points are known."""
    known = {name: curve for name, curve in curves.items() if sum(y is not None for _, y in curve) > 1}
    values = [y for curve in known.values() for _, y in curve if y is not None]
    if not values:
        return None
    last = max(x for curve in known.values() for x, _ in curve)
    said = f"{title}: from {short(min(values))} to {short(max(values))} {unit} over {short(last)} seconds."
    axes = Axes(title, said, (0.0, last), (0.0, max(values)), "seconds since the start", unit, whole_x=True)
    for series, curve in enumerate(known.values()):
        axes.curve(curve, series)
    return Plot(title, axes.markup(), caption, tuple(known) if len(known) > 1 else ())


def distribution(title: str, what: str, unit: str, found: Histogram, caption: str) -> Plot:
    """A histogram: how many `what` lie in each range of `unit`."""
    edges, counts = found.edges, found.counts
    said = f"{title}: {sum(counts):,} {what} from {short(edges[0])} to {short(edges[-1])} {unit}."
    beside = max(0, _FEWEST_BINS - len(counts)) / 2 * (edges[1] - edges[0])  # a single bar is no wall
    span = (edges[0] - beside, edges[-1] + beside)
    axes = Axes(title, said, span, (0.0, float(max(counts))), unit, what, whole_x=True)
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        axes.bar((low, high), count, f"{short(low)} to {short(high)} {unit}: {count:,} {what}")
    return Plot(title, axes.markup(), caption)


def calibration(title: str, bins: Sequence[Calibrated], caption: str) -> Plot:
    """Mean score by mean confidence; on the diagonal the model is as often right as it is sure."""
    total = sum(one.n for one in bins)
    said = f"{title}: " + ", ".join(f"confidence {one.confidence:.2f}, score {one.score:.2f}" for one in bins) + "."
    axes = Axes(title, said, (0.0, 1.0), (0.0, 1.0), "mean confidence", "mean score")
    axes.curve([(0.0, 0.0), (1.0, 1.0)], 9)
    axes.curve([(one.confidence, one.score) for one in bins], 0)
    for one in bins:
        told = f"confidence {one.confidence:.3f}, score {one.score:.3f}, {one.n:,} answers"
        radius = 3 + 9 * (one.n / total) ** 0.5
        axes.add("circle", told=told, cx=axes.x(one.confidence), cy=axes.y(one.score), r=radius, class_="dot s0")
    return Plot(title, axes.markup(), caption)


def shares(title: str, unit: str, parts: Mapping[str, float], caption: str) -> Plot | None:
    """What a whole consists of, as one bar; parts of less than 0.5 % have their place in the legend alone."""
    known = {name: value for name, value in parts.items() if value > 0}
    total = sum(known.values())
    if not total:
        return None
    said = f"{title}: " + ", ".join(f"{name} {value / total:.1%}" for name, value in known.items()) + "."
    bar = Drawing(title, said, WIDTH, 44)
    at = 0.0
    legend = []
    for series, (name, value) in enumerate(sorted(known.items(), key=lambda part: -part[1])):
        width = value / total * WIDTH
        shown = f"{name} {value:,.4g} {unit}, {value / total:.1%}"
        bar.add("rect", told=shown, x=at, y=4, width=max(0.5, width - 1), height=36, class_=f"bar s{series % 9}")
        legend.append(shown)
        at += width
    return Plot(title, bar.markup(), caption, legend)


def interval(low: float | None, value: float, high: float | None, span: tuple[float, float]) -> Markup:
    """A mean with its interval as a small image for a table's cell; `span` is what the image is as wide as."""
    width, height, pad = 160, 20, 6
    drawing = Drawing("", "", width, height)
    drawing.root.set("class", "interval")
    drawing.root.set("aria-hidden", "true")  # the figures stand beside it
    begin, end = span

    def at(x: float) -> float:
        return pad + (x - begin) / (end - begin) * (width - 2 * pad)

    drawing.add("line", x1=pad, x2=width - pad, y1=height / 2, y2=height / 2, class_="grid")
    if low is not None and high is not None:
        drawing.add("line", x1=at(low), x2=at(high), y1=height / 2, y2=height / 2, class_="whisker")
    drawing.add("circle", cx=at(value), cy=height / 2, r=4, class_="dot s0")
    return drawing.markup()


def span_of(values: Sequence[float]) -> tuple[float, float]:
    """From where to where intervals are drawn: round numbers around all values."""
    found = ticks(min(values), max(values))
    return found[0], found[-1]
