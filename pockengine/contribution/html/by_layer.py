"""Charts with a column a layer: gains of parts of weights, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from pockengine.contribution.html.drawing import BOTTOM, TOP, Axis, Plot, axis_over, framed, legend
from pockengine.contribution.html.markup import Markup, joined, tag
from pockengine.contribution.layers import Layer
from pockengine.contribution.measured import Gain, Sensitivity
from pockengine.contribution.shown import LayerCost
from pockengine.contribution.wording import (
    NOTHING,
    byte_unit,
    bytes_text,
    has_interval,
    is_clear,
    joule_unit,
    joules_text,
    most_steps,
    ms_text,
    part,
    ratios_of,
    shape_text,
    with_interval,
)

_SLOT = 0.72
"""Share of a layer's column that its marks take."""


def contribution_chart(sensitivity: Sensitivity) -> Markup:
    """The gain of each part of each weight, with its interval."""
    ratios, layers = ratios_of(sensitivity), sensitivity.layers
    gains = list(sensitivity.weights.values())
    plot = Plot(x=_columns(layers), y=_gain_axis(gains), height=340)
    most = most_steps(sensitivity)
    marks = [
        mark
        for (index, ratio), gain in sensitivity.weights.items()
        for mark in _gain_marks(
            plot, _place(index, ratio, ratios), gain, _Kind(ratio, ratios, gain.stopped_early(most))
        )
    ]
    hints = [gains_hint(sensitivity, index) for index in range(len(layers))]
    chart = _layer_chart(
        plot, layers, marks, hints,
        label=f"Gain of updating parts of each of {len(layers)} weights, with 95 % intervals",
        upwards="points of accuracy over updating biases alone", signed=True, dots=len(ratios),
    )  # fmt: skip
    return joined(
        [_ratio_legend(ratios, early=any(gain.stopped_early(most) for gain in gains)), chart]
    )


def cost_charts(layers: Sequence[Layer], costs: Sequence[LayerCost]) -> list[Markup]:
    """Memory, time and energy of each part, as far as they are known."""
    ratios = sorted({cost.ratio for cost in costs if cost.ratio})
    measures = [measure for measure in _measures(costs) if measure.values]
    hints = [costs_hint(layers, index, costs) for index in range(len(layers))]
    charts = [_cost_chart(layers, measure, ratios, hints) for measure in measures]
    return [_ratio_legend(ratios, biases=any(not cost.ratio for cost in costs)), *charts]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a mark looks: by its part among all that were tried, and whether it stopped early."""

    ratio: float
    ratios: Sequence[float]
    early: bool = False

    @property
    def place(self) -> float:
        """Of the part among all: 0 for the smallest, 1 for the largest."""
        return self.ratios.index(self.ratio) / max(1, len(self.ratios) - 1)

    def dot(self, x: str, y: str, *, clear: bool = True) -> Markup:
        """Larger and darker for larger parts, hollow where it stopped early."""
        kind = " ".join(["part", *["early"] * self.early, *["unclear"] * (not clear)])
        radius = f"{2.6 + 1.8 * self.place:.1f}"
        return tag("circle", cx=x, cy=y, r=radius, class_=kind, style=f"--place:{self.place:.3f}")


@dataclass(frozen=True, slots=True)
class _Measure:
    """One kind of cost by (layer, ratio), in a unit."""

    name: str
    unit: str
    values: Mapping[tuple[int, float], float]


def _columns(layers: Sequence[Layer]) -> Axis:
    return Axis((0.0, float(len(layers))))


def _place(index: int, ratio: float, ratios: Sequence[float]) -> float:
    """Where a part is within its layer's column."""
    return index + 0.5 + _SLOT * ((ratios.index(ratio) + 0.5) / len(ratios) - 0.5)


def _gain_axis(gains: Sequence[Gain]) -> Axis:
    """Holds all means, and of intervals no more than as much again to either side."""
    means = [0.0, *(100 * gain.mean for gain in gains)]
    reach = max(max(means) - min(means), 1.0)
    low, high = min(means) - reach, max(means) + reach
    ends = [100 * end for gain in gains if has_interval(gain) for end in (gain.low, gain.high)]
    return axis_over([*means, *(min(high, max(low, end)) for end in ends)], least=1.0, count=6)


def _gain_marks(plot: Plot, x: float, gain: Gain, kind: _Kind) -> Iterator[Markup]:
    if has_interval(gain):
        yield plot.whisker(x, 100 * gain.low, 100 * gain.high)
    clear = is_clear(gain) or not has_interval(gain)
    yield kind.dot(plot.across(x), plot.down(100 * gain.mean), clear=clear)


def gains_hint(sensitivity: Sensitivity, index: int) -> str:
    """All that was measured of a layer, a line each."""
    layer, last = sensitivity.layers[index], len(sensitivity.layers) - index
    lines = [_title(index, layer)]
    if last <= len(sensitivity.biases):
        gain = sensitivity.biases[last - 1]
        lines.append(f"biases from here on (last {last}): {with_interval(gain)} points")
    most = most_steps(sensitivity)
    for ratio in ratios_of(sensitivity):
        found = sensitivity.weights.get((index, ratio))
        if found:
            early = ", stopped early" if found.stopped_early(most) else ""
            lines.append(f"{part(ratio)}: {with_interval(found)} points{early}")
    return "\n".join(lines)


def _title(index: int, layer: Layer) -> str:
    kind = ", ".join(filter(None, [layer.role, shape_text(layer.shape)]))
    return f"Layer {index}: {layer.name} ({kind})"


def _cost_chart(
    layers: Sequence[Layer], measure: _Measure, ratios: Sequence[float], hints: Sequence[str]
) -> Markup:
    plot = Plot(x=_columns(layers), y=axis_over([0.0, *measure.values.values()]), height=220)
    reach = [(i + 0.5, value) for (i, ratio), value in sorted(measure.values.items()) if not ratio]
    marks = [plot.line(a, b, "reach") for a, b in pairwise(reach)]
    marks += [_square(plot.across(x), plot.down(y)) for x, y in reach]
    marks += [
        _Kind(ratio, ratios).dot(plot.across(_place(index, ratio, ratios)), plot.down(value))
        for (index, ratio), value in measure.values.items()
        if ratio
    ]
    return _layer_chart(
        plot, layers, marks, hints,
        label=f"{measure.name.capitalize()} of updating parts of each of {len(layers)} weights",
        upwards=f"{measure.name}, {measure.unit} more", signed=False, dots=len(ratios),
    )  # fmt: skip


def costs_hint(layers: Sequence[Layer], index: int, costs: Sequence[LayerCost]) -> str:
    """All that is known of what a layer costs, a line each."""
    lines = [_title(index, layers[index])]
    for cost in sorted((c for c in costs if c.layer == index), key=lambda c: c.ratio):
        texts = [bytes_text(cost.memory_bytes), ms_text(cost.step_ms), joules_text(cost.joules)]
        known = ", ".join(text for text in texts if text != NOTHING)
        lines.append(f"{part(cost.ratio) if cost.ratio else 'biases from here on'}: {known}")
    return "\n".join(lines)


def _measures(costs: Sequence[LayerCost]) -> list[_Measure]:
    """What is known, each in the unit that suits its largest value."""
    size, byte = byte_unit(max((cost.memory_bytes for cost in costs), default=0))
    energy, joule = joule_unit(max((cost.joules or 0.0 for cost in costs), default=0.0))
    return [
        _measure("memory", byte, size, {_key(cost): cost.memory_bytes for cost in costs}),
        _measure("time", "ms", 1.0, {_key(cost): cost.step_ms for cost in costs}),
        _measure("energy", joule, energy, {_key(cost): cost.joules for cost in costs}),
    ]


def _key(cost: LayerCost) -> tuple[int, float]:
    return cost.layer, cost.ratio


def _measure(
    name: str, unit: str, size: float, values: Mapping[tuple[int, float], float | None]
) -> _Measure:
    known = {key: value / size for key, value in values.items() if value is not None}
    return _Measure(name, unit, known)


def _layer_chart(
    plot: Plot,
    layers: Sequence[Layer],
    marks: Sequence[Markup],
    hints: Sequence[str],
    *,
    label: str,
    upwards: str,
    signed: bool,
    dots: int,
) -> Markup:
    wide = max(14, 5 * dots)
    return framed(
        plot,
        [*_bands(plot, layers), *marks, *_hits(plot, hints)],
        label=label,
        across=[(i + 0.5, str(i)) for i in range(0, len(layers), _every(wide))],
        across_title="layers by number, in the order of the forward pass; blocks above",
        upwards_title=upwards,
        signed=signed,
        least_width=wide * len(layers),
    )


def _every(wide: int) -> int:
    """Every which layer has room for its number."""
    return next(n for n in (1, 2, 5) if n * wide >= 28)


def blocks_of(layers: Sequence[Layer]) -> list[tuple[str, list[int]]]:
    """The layers by the block that they belong to, in their order."""
    groups = groupby(range(len(layers)), key=lambda index: layers[index].block)
    return [(block, list(indices)) for block, indices in groups]


def _bands(plot: Plot, layers: Sequence[Layer]) -> Iterator[Markup]:
    """A shade and a short name for each block."""
    named = [(block, indices) for block, indices in blocks_of(layers) if block]
    for number, (block, indices) in enumerate(named):
        width = f"{100 * len(indices) / len(layers):.3f}%"
        place = {"x": plot.across(indices[0]), "width": width}
        if number % 2 == 0:
            yield tag("rect", **place, y=0, height=plot.height - BOTTOM, class_="band")
        text = tag("text", block.rpartition(".")[2], x="50%", y=15, text_anchor="middle")
        yield tag("svg", tag("title", block), text, **place, y=0, height=TOP)


def _hits(plot: Plot, hints: Sequence[str]) -> Iterator[Markup]:
    """A column for each layer, that tells what is in it."""
    for index, hint in enumerate(hints):
        place = {"x": plot.across(index), "width": f"{100 / len(hints):.3f}%"}
        yield tag("rect", tag("title", hint), **place, y=0, height=plot.height - 20, class_="hit")


def _ratio_legend(ratios: Sequence[float], *, early: bool = False, biases: bool = False) -> Markup:
    entries = [(_Kind(ratio, ratios).dot("12", "8"), _of(ratio)) for ratio in ratios]
    if early:
        entries.append(
            (_Kind(ratios[-1], ratios, early=True).dot("12", "8"), "hollow: stopped early")
        )
    if biases:
        entries.append((_square("12", "8"), "biases from here on"))
    return legend(entries)


def _square(x: str, y: str) -> Markup:
    """Stands for biases."""
    return tag("rect", x=x, y=y, width=6, height=6, transform="translate(-3 -3)", class_="biases")


def _of(ratio: float) -> str:
    return "whole weight" if part(ratio) == "whole" else f"{part(ratio)} of a weight"
