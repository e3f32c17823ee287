"""Charts of whole choices: biases of the last layers, the front, predicted against measured."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pockengine.contribution.choice import Choice
from pockengine.contribution.html.drawing import Axis, Plot, axis_over, framed
from pockengine.contribution.html.markup import Markup, tag
from pockengine.contribution.layers import Layer
from pockengine.contribution.measured import Sensitivity
from pockengine.contribution.shown import Checked, FrontPoint
from pockengine.contribution.wording import (
    byte_unit,
    bytes_text,
    choice_text,
    has_interval,
    points,
    with_interval,
)


def bias_chart(sensitivity: Sensitivity, chosen: Choice | None) -> Markup:
    """The gain of the biases of the last k layers over k."""
    gains, count = sensitivity.biases, len(sensitivity.biases)
    ends = [end for gain in gains if has_interval(gain) for end in (gain.low, gain.high)]
    values = [100 * value for value in (0.0, *(gain.mean for gain in gains), *ends)]
    plot = Plot(x=Axis((-0.5, count + 0.5)), y=axis_over(values, least=1.0), height=280)
    means = [(0.0, 0.0), *((gain.choice.biases, 100 * gain.mean) for gain in gains)]
    marks = [plot.line(a, b, "curve") for a, b in pairwise(means)]
    marks += [
        plot.whisker(gain.choice.biases, 100 * gain.low, 100 * gain.high)
        for gain in gains
        if has_interval(gain)
    ]
    marks += [plot.dot(0.0, 0.0, 2.6, "bias", "head alone")]
    for gain in gains:
        hint = f"last {gain.choice.biases}: {with_interval(gain)} points"
        marks.append(plot.dot(gain.choice.biases, 100 * gain.mean, 2.6, "bias", hint))
    if chosen and chosen.biases <= count:
        y = 100 * sensitivity.bias_gain(chosen.biases)
        marks.append(plot.dot(chosen.biases, y, 8, "chosen", f"chosen: last {chosen.biases}"))
    every = next(n for n in (1, 2, 5, 10, 20, 50, 100, 500) if count / n <= 12 or n == 500)
    return framed(
        plot, marks,
        label=f"Gain of training the biases of the last 0 to {count} layers, with 95 % intervals",
        across=[(float(k), str(k)) for k in range(0, count + 1, every)],
        across_title="number of layers, counted from the end, whose biases are trained",
        upwards_title="points of accuracy over the head alone", signed=True,
        least_width=5 * count,
    )  # fmt: skip


def front_chart(
    front: Sequence[FrontPoint], chosen: FrontPoint | None, layers: Sequence[Layer]
) -> Markup:
    """Predicted gain against memory; the chosen point is ringed."""
    ordered = sorted(front, key=lambda point: (point.memory_bytes, point.gain))
    shown = [*ordered, *([chosen] if chosen else [])]
    size, unit = byte_unit(max(point.memory_bytes for point in shown))
    x = axis_over([point.memory_bytes / size for point in shown], count=5)
    plot = Plot(x=x, y=axis_over([100 * point.gain for point in shown], least=1.0), height=340)
    places = [(point.memory_bytes / size, 100 * point.gain) for point in ordered]
    marks = []
    for (x1, y1), (x2, y2) in pairwise(places):  # none between is feasible
        marks += [plot.line((x1, y1), (x2, y1), "curve"), plot.line((x2, y1), (x2, y2), "curve")]
    for point, (across, up) in zip(ordered, places, strict=True):
        marks.append(
            plot.dot(across, up, 4 if len(front) <= 40 else 2.6, "bias", _front_hint(point, layers))
        )
    if chosen:
        marks += _chosen(plot, chosen.memory_bytes / size, chosen, layers)
    return framed(
        plot, marks,
        label=f"Predicted gain against memory of {len(front)} best choices",
        across=[(tick, x.text(tick)) for tick in x.ticks],
        across_title=f"memory of a training step, {unit}",
        upwards_title="predicted points of accuracy over the head alone", signed=True,
    )  # fmt: skip


def _chosen(plot: Plot, x: float, chosen: FrontPoint, layers: Sequence[Layer]) -> list[Markup]:
    y = 100 * chosen.gain
    text = f"chosen: {points(chosen.gain)}, {bytes_text(chosen.memory_bytes)}"
    anchor = ("start", "middle", "end")[int(2.99 * plot.x.share(x))]  # stays inside the chart
    dy = 28 if plot.y.share(y) > 0.2 else -18
    place = {"x": plot.across(x), "y": plot.down(y), "dy": dy, "text_anchor": anchor}
    label = tag("text", text, **place, class_="strong")
    return [plot.dot(x, y, 9, "chosen", _front_hint(chosen, layers)), label]


def _front_hint(point: FrontPoint, layers: Sequence[Layer]) -> str:
    figures = f"{points(point.gain)} points, {bytes_text(point.memory_bytes)}"
    return f"{figures}\n{choice_text(point.choice, layers)}"


def checked_chart(checked: Sequence[Checked], layers: Sequence[Layer]) -> Markup:
    """Measured gains of whole choices against the sums of their parts."""
    ends = [100 * end for each in checked for end in (each.low, each.high, each.measured)]
    predicted = [100 * each.predicted for each in checked]
    both = axis_over([0.0, *ends, *predicted], least=1.0)
    plot = Plot(x=both, y=both, height=380)
    marks = [plot.line((both.ticks[0],) * 2, (both.ticks[-1],) * 2, "equal")]
    for each, x in zip(checked, predicted, strict=True):
        marks.append(plot.whisker(x, 100 * each.low, 100 * each.high))
        hint = f"predicted {points(each.predicted)}, measured {points(each.measured)}"
        hint += f"\n{choice_text(each.choice, layers)}"
        marks.append(plot.dot(x, 100 * each.measured, 4, "bias", hint))
    return framed(
        plot, marks,
        label=f"Measured against predicted gain of {len(checked)} choices",
        across=[(tick, both.text(tick, signed=True)) for tick in both.ticks],
        across_title="predicted points of accuracy; on the dashed line both are the same",
        upwards_title="measured points of accuracy over the head alone", signed=True,
    )  # fmt: skip
