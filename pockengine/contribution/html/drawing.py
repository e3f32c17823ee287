"""Axes and frames of charts: SVG that stretches with its box while its text keeps its size.

Across, places are shares of the width; upwards, pixels. A chart that needs more width than there is
scrolls within its box, its axis of figures staying in sight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

from pockengine.contribution.html.markup import Markup, joined, tag
from pockengine.contribution.wording import MINUS

TOP = 24
"""Pixels above the highest value."""
BOTTOM = 44
"""Pixels below the lowest value, for labels."""
_ON_PAPER = 18
"""Labels that fit below a chart on paper."""
_CROWDED = 3 * _ON_PAPER
"""More labels than this make a chart whose marks are smaller on paper."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Ticks, from the first to the last of which an axis reaches."""

    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where a value is, from 0 to 1; what is beyond an end is at it."""
        low, high = self.ticks[0], self.ticks[-1]
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def text(self, tick: float, *, signed: bool = False) -> str:
        """A tick's label, with the digits that its neighbours ask for."""
        digits = max(0, -floor(log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        text = f"{tick:{'+' if signed else ''}.{digits}f}"
        zero = not any(digit in text for digit in "123456789")
        return "0" if zero else text.replace("-", MINUS)


def axis_over(values: Iterable[float], *, least: float = 0.0, count: int = 5) -> Axis:
    """An axis with about so many round ticks that holds all finite values.

    Args:
        values: may be none.
        least: extent that it has at least.
        count: of ticks.
    """
    found = [value for value in values if isfinite(value)] or [0.0]
    low, high = min(found), max(found)
    extent = max(high - low, least, abs(high) * 1e-6) or 1.0
    high = max(high, low + extent)
    step = _round_step(extent / count)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return Axis(tuple(number * step for number in range(first, max(last, first + 1) + 1)))


def _round_step(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** floor(log10(step))
    return float(next(power * size for size in (1, 2, 5, 10) if power * size >= step * 0.999))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Where values are in a chart.

    Args:
        x: across; its ends are those of the chart.
        y: upwards.
        height: in pixels.
    """

    x: Axis
    y: Axis
    height: int = 300

    def across(self, value: float) -> str:
        """Place of a value as a share of the width."""
        return f"{100 * self.x.share(value):.3f}%"

    def down(self, value: float) -> str:
        """Place of a value in pixels from the top."""
        return f"{TOP + (self.height - TOP - BOTTOM) * (1 - self.y.share(value)):.1f}"

    def line(self, start: tuple[float, float], end: tuple[float, float], class_: str) -> Markup:
        """A line between two points."""
        (x1, y1), (x2, y2) = start, end
        return tag(
            "line",
            x1=self.across(x1),
            x2=self.across(x2),
            y1=self.down(y1),
            y2=self.down(y2),
            class_=class_,
        )

    def dot(self, x: float, y: float, radius: float, class_: str, hint: str = "") -> Markup:
        """A point, with words for who points at it."""
        title = [tag("title", hint)] if hint else []
        place = {"cx": self.across(x), "cy": self.down(y)}
        return tag("circle", *title, **place, r=f"{radius:.2f}", class_=class_)

    def whisker(self, x: float, low: float, high: float) -> Markup:
        """An interval."""
        return self.line((x, low), (x, high), "whisker")


def framed(
    plot: Plot,
    marks: Sequence[Markup],
    *,
    label: str,
    across: Sequence[tuple[float, str]],
    across_title: str,
    upwards_title: str,
    signed: bool = False,
    least_width: int = 0,
) -> Markup:
    """A chart: axes, grid and marks, in a box that scrolls where it is too narrow.

    Args:
        plot: its axes.
        marks: what is drawn.
        label: what a screen reader says.
        across: labels below, by place.
        across_title: what is across.
        upwards_title: what is upwards.
        signed: whether values upwards have a sign.
        least_width: in pixels.
    """
    often = ceil(len(across) / _ON_PAPER)
    area = tag(
        "svg",
        tag("title", label),
        *_grid(plot),
        *marks,
        *(_below(plot, i, value, text, often) for i, (value, text) in enumerate(across)),
        height=plot.height,
        role="img",
        aria_label=label,
        class_="area",
    )
    body = tag(
        "div", _figures(plot, signed=signed), area, class_="plot", style=f"--least:{least_width}px"
    )
    scroll = tag("div", body, class_="scroll", tabindex="0", role="region", aria_label=label)
    titles = (
        tag("p", tag("b", upwards_title), class_="upwards"),
        tag("p", across_title, class_="across"),
    )
    return tag(
        "figure",
        titles[0],
        scroll,
        titles[1],
        class_="chart many" if len(across) > _CROWDED else "chart",
    )


def _figures(plot: Plot, *, signed: bool) -> Markup:
    """The labels of the axis upwards, which stay in sight."""
    labels = [
        tag(
            "text",
            plot.y.text(tick, signed=signed),
            x="44",
            y=plot.down(tick),
            dy="4",
            text_anchor="end",
        )
        for tick in plot.y.ticks
    ]
    return tag("svg", *labels, width=52, height=plot.height, class_="figures", aria_hidden="true")


def _grid(plot: Plot) -> list[Markup]:
    """A line a tick; zero's is stronger."""
    left, right = plot.x.ticks[0], plot.x.ticks[-1]
    return [
        plot.line((left, tick), (right, tick), "grid" if abs(tick) > 1e-12 else "grid zero")
        for tick in plot.y.ticks
    ]


def _below(plot: Plot, number: int, value: float, text: str, often: int) -> Markup:
    """A label; on paper, where nothing scrolls, only some are shown."""
    kind = "between" if number % often else None
    place = {"x": plot.across(value), "y": plot.height - 24}
    return tag("text", text, **place, text_anchor="middle", class_=kind)


def legend(entries: Iterable[tuple[Markup, str]]) -> Markup:
    """What the marks of a chart mean."""
    items = [
        tag("li", tag("svg", mark, width=24, height=16, aria_hidden="true"), text)
        for mark, text in entries
    ]
    return tag("ul", joined(items), class_="legend")
