"""A plot's drawing: two axes with ticks and units, and marks on them. Colours come from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from markupsafe import Markup

from batchchat.reporting.escape import xml
from batchchat.reporting.html.numbers import short, ticks

WIDTH, HEIGHT = 480, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 24, 44


class Drawing:
    """An SVG image with a title and a description for those who do not see it."""

    def __init__(self, title: str, description: str, width: float = WIDTH, height: float = HEIGHT):
        self.root = Element(
            "svg", {"viewBox": f"0 0 {width:g} {height:g}", "role": "img", "class": "plot", "aria-label": xml(title)}
        )
        SubElement(self.root, "desc").text = xml(description)

    def add(self, tag: str, text: str | None = None, told: str | None = None, **attributes: object) -> Element:
        """A shape, with `told` shown when the pointer rests on it. `class_` is `class`, `_` in names is `-`."""
        plain = {
            name.rstrip("_").replace("_", "-"): f"{value:.6g}" if isinstance(value, float) else str(value)
            for name, value in attributes.items()
        }
        shape = SubElement(self.root, tag, plain)
        if told is not None:
            SubElement(shape, "title").text = xml(told)
        shape.text = None if text is None else xml(text)
        return shape

    def markup(self) -> Markup:
        """The image as HTML."""
        return Markup(ElementTree.tostring(self.root, encoding="unicode", short_empty_elements=False))


class Axes(Drawing):
    """A drawing with an x and a y axis that begin and end at round numbers."""

    def __init__(
        self,
        title: str,
        description: str,
        x: tuple[float, float],
        y: tuple[float, float],
        x_label: str,
        y_label: str,
        whole_x: bool = False,
    ):
        super().__init__(title, description)
        along, up = ticks(*x, most=7), ticks(*y)
        self._x = x if whole_x else (along[0], along[-1])
        self._y = (up[0], up[-1])
        for value in up:
            at = self.y(value)
            self.add("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=at, y2=at, class_="grid")
            self.add("text", short(value), x=_LEFT - 6, y=at + 4, class_="tick end")
        for value in along:
            if self._x[0] <= value <= self._x[1]:
                at = self.x(value)
                self.add("line", x1=at, x2=at, y1=HEIGHT - _BOTTOM, y2=HEIGHT - _BOTTOM + 4, class_="axis")
                self.add("text", short(value), x=at, y=HEIGHT - _BOTTOM + 17, class_="tick middle")
        base = HEIGHT - _BOTTOM
        self.add("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=base, y2=base, class_="axis")
        self.add("text", x_label, x=(_LEFT + WIDTH - _RIGHT) / 2, y=HEIGHT - 8, class_="label middle")
        self.add("text", y_label, x=6, y=13, class_="label")

    def x(self, value: float) -> float:
        """Where a value lies along the image."""
        low, high = self._x
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Where a value lies from the top of the image."""
        low, high = self._y
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def curve(self, points: Sequence[tuple[float, float | None]], series: int) -> None:
        """Points joined by lines; a gap where a value is missing."""
        pen, path = "M", []
        for x, y in points:
            if y is None:
                pen = "M"
                continue
            path.append(f"{pen}{self.x(x):.1f} {self.y(y):.1f}")
            pen = "L"
        self.add("path", d="".join(path), class_=f"curve s{series}")

    def bar(self, x: tuple[float, float], y: float, told: str) -> None:
        """A bar from the x axis up to `y`; one pixel at least, so that what is rare is seen."""
        left, right, top = self.x(x[0]), self.x(x[1]), self.y(y)
        height = max(1.0, HEIGHT - _BOTTOM - top) if y else 0.0
        width = max(1.0, right - left - 1)
        self.add("rect", told=told, x=left, y=HEIGHT - _BOTTOM - height, width=width, height=height, class_="bar s0")
