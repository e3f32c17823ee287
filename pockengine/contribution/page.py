"""The page of a sensitivity: which layers a device should update, on one sheet for any browser.

It holds its style, its script, its charts and its figures itself, and fetches nothing.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from string import Template

from pockengine.contribution.by_layer import contribution_chart, cost_charts, costs_hint, gains_hint
from pockengine.contribution.charts import bias_chart, checked_chart, front_chart
from pockengine.contribution.layers import Layer
from pockengine.contribution.markup import Markup, folded, html_table, joined, tag
from pockengine.contribution.measured import Gain, Sensitivity
from pockengine.contribution.network import network, reach_text
from pockengine.contribution.shown import Checked, FrontPoint, LayerCost
from pockengine.contribution.table import to_csv
from pockengine.contribution.wording import (
    MINUS,
    NOTHING,
    all_gains,
    bytes_text,
    choice_text,
    counted,
    is_clear,
    joules_text,
    most_steps,
    ms_text,
    of_weight,
    part,
    percent,
    points,
    ratios_of,
    shape_text,
    with_interval,
)

_BEST = 10
"""Weights in the list of the most valuable."""


def page(
    sensitivity: Sensitivity,
    *,
    costs: Sequence[LayerCost] = (),
    front: Sequence[FrontPoint] = (),
    chosen: FrontPoint | None = None,
    checked: Sequence[Checked] = (),
    command: str = "",
    title: str = "What each layer is worth",
) -> str:
    """The page as HTML; what is not given is left out.

    Args:
        sensitivity: what was measured.
        costs: of parts of layers.
        front: best choices by memory.
        chosen: one choice, to be explained.
        checked: choices that were trained as a whole.
        command: that compiles the chosen one, to be copied.
        title: of the page.
    """
    sections = [
        _chosen(sensitivity, chosen, command) if chosen or command else None,
        _front(sensitivity, front, chosen) if front else None,
        _weights(sensitivity, costs) if sensitivity.weights else None,
        _biases(sensitivity, chosen) if sensitivity.biases else None,
        _costs(sensitivity.layers, costs) if costs else None,
        _checked(sensitivity.layers, checked) if checked else None,
        _settings(sensitivity),
    ]
    files = resources.files(__package__)
    return Template((files / "sensitivity.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=(files / "sensitivity.css").read_text(encoding="utf-8"),
        script=(files / "sensitivity.js").read_text(encoding="utf-8"),
        summary=joined([*_summary(sensitivity), _tiles(sensitivity, chosen)]),
        sections=joined([section for section in sections if section]),
    )


def _section(name: str, heading: str, *children: str) -> Markup:
    return tag(
        "section", tag("h2", heading, id=f"{name}-title"), *children,
        id=name, aria_labelledby=f"{name}-title",
    )  # fmt: skip


def _summary(sensitivity: Sensitivity) -> Iterator[Markup]:
    """What was measured, in two sentences."""
    base, steps = sensitivity.baseline, counted(most_steps(sensitivity), "training step")
    count = counted(len(sensitivity.layers), "layer")
    yield tag(
        "p",
        f"The biases and weights of {count} were fine-tuned a part at a time, with "
        f"{counted(base.seeds, 'seed')} up to {steps} each, and tried on held-out examples. "
        f"Training only the head, which a new task always needs, gets {percent(base.accuracy)} of "
        "them right; a gain is how many percentage points more a part gets right.",
        class_="lead",
    )


def _tiles(sensitivity: Sensitivity, chosen: FrontPoint | None) -> Markup:
    """The figures to remember."""
    gains = all_gains(sensitivity)
    found: list[tuple[str, str, str]] = [("head alone", percent(sensitivity.baseline.accuracy), "")]
    if sensitivity.biases:
        best = max(sensitivity.biases, key=lambda gain: gain.mean)
        found.append(("best biases", f"{points(best.mean)} points", f"last {best.choice.biases}"))
    if sensitivity.weights:
        (index, ratio), gain = max(sensitivity.weights.items(), key=lambda item: item[1].mean)
        found.append(
            ("best weight", f"{points(gain.mean)} points", f"{part(ratio)} of layer {index}")
        )
    if gains:
        clear = sum(map(is_clear, gains))
        found.append(("clearly above zero", f"{clear} of {len(gains)}", "by their 95 % intervals"))
    if sensitivity.rank_correlation is not None:
        text = f"{sensitivity.rank_correlation:.2f}".replace("-", MINUS)
        found.append(("estimates against gains", text, "rank correlation"))
    if chosen:
        costs = [ms_text(chosen.step_ms)] * (chosen.step_ms is not None)
        costs += [joules_text(chosen.joules)] * (chosen.joules is not None)
        figures = ", ".join([bytes_text(chosen.memory_bytes), *costs])
        found.append(("chosen, predicted", f"{points(chosen.gain)} points", figures))
    cells = [
        tag("div", tag("dt", name), tag("dd", figure, *([tag("small", note)] if note else [])))
        for name, figure, note in found
    ]
    return tag("dl", *cells, class_="tiles")


def _chosen(sensitivity: Sensitivity, chosen: FrontPoint | None, command: str) -> Markup:
    parts: list[Markup] = []
    if chosen:
        parts += _explained(sensitivity.layers, chosen)
    if command:
        button = tag("button", "Copy", type="button", class_="copy", hidden=True)
        parts += [
            tag("h3", "To compile it"),
            tag("div", tag("pre", tag("code", command)), button, class_="command"),
        ]
    return _section("chosen", "What to update", *parts)


def _explained(layers: Sequence[Layer], chosen: FrontPoint) -> Iterator[Markup]:
    weights = chosen.choice.weights
    updated = ["the head"]
    if chosen.choice.biases:
        updated.append(f"the biases of the last {counted(chosen.choice.biases, 'layer')}")
    if weights:
        updated.append(f"{counted(len(weights), 'weight')} (as a whole or in part)")
    listed = " and ".join(filter(None, [", ".join(updated[:-1]), updated[-1]]))
    yield tag("p", f"The chosen scheme updates {listed}. {reach_text(layers, chosen.choice)}")
    yield network(layers, chosen.choice)
    if weights:
        rows = [(str(i), layers[i].name, layers[i].role, of_weight(r)) for i, r in weights.items()]
        table = html_table(("", "layer", "role", "updated"), rows, words=(0, 1, 2, 3))
        yield folded("Updated weights as a table", table)


def _front(
    sensitivity: Sensitivity, front: Sequence[FrontPoint], chosen: FrontPoint | None
) -> Markup:
    layers = sensitivity.layers
    rows = [
        (
            choice_text(point.choice, layers), points(point.gain), bytes_text(point.memory_bytes),
            ms_text(point.step_ms), joules_text(point.joules),
        )
        for point in sorted(front, key=lambda point: point.memory_bytes)
    ]  # fmt: skip
    headers = ("updates", "gain, points", "memory", "step", "energy")
    return _section(
        "front", "Gain against memory",
        tag("p", "Each point is the best choice for its memory: predicted as the sum of the gains "
            "of its parts."),
        front_chart(front, chosen, layers),
        folded(f"{counted(len(front), 'choice')} as a table", html_table(headers, rows)),
    )  # fmt: skip


def _weights(sensitivity: Sensitivity, costs: Sequence[LayerCost]) -> Markup:
    best, _ = max(sensitivity.weights, key=lambda key: sensitivity.weights[key].mean)
    return _section(
        "weights", "Gain of each weight",
        tag("p", "What updating a part of one layer's weight adds to training the biases from that "
            "layer on. Lines are 95 % intervals over seeds; pale marks are not clearly above zero. "
            "Point at a layer, or use the arrow keys, for its figures."),
        contribution_chart(sensitivity),
        tag("p", gains_hint(sensitivity, best), class_="told", role="status", data_layer=best),
        tag("h3", "The most valuable weights"),
        _best(sensitivity, costs),
        folded("All weights as a table", _weight_table(sensitivity)),
    )  # fmt: skip


def _best(sensitivity: Sensitivity, costs: Sequence[LayerCost]) -> Markup:
    """The weights of the highest gains, each with its best part."""
    best: dict[int, tuple[float, Gain]] = {}
    for (index, ratio), gain in sensitivity.weights.items():
        if index not in best or gain.mean > best[index][1].mean:
            best[index] = ratio, gain
    ranked = sorted(best.items(), key=lambda item: -item[1][1].mean)[:_BEST]
    memory = {(cost.layer, cost.ratio): bytes_text(cost.memory_bytes) for cost in costs}
    rows = []
    for index, (ratio, gain) in ranked:
        layer = sensitivity.layers[index]
        cost = [memory.get((index, ratio), NOTHING)] if costs else []
        rows.append([f"{index}  {layer.name}", part(ratio), with_interval(gain), *cost, layer.role])
    headers = ["layer", "part", "gain, points", *["memory"] * bool(costs), "role"]
    return html_table(headers, rows, words=(0, 1, len(headers) - 1))


def _weight_table(sensitivity: Sensitivity) -> Markup:
    ratios, most = ratios_of(sensitivity), most_steps(sensitivity)
    rows = []
    for index, layer in enumerate(sensitivity.layers):
        gains = [sensitivity.weights.get((index, ratio)) for ratio in ratios]
        cells = [_cell(gain, most) for gain in gains]
        estimates = [gain.estimate for gain in gains if gain and gain.estimate is not None]
        estimate = f"{estimates[-1]:.3g}" if estimates else NOTHING
        rows.append(
            [f"{index}  {layer.name}", layer.role, shape_text(layer.shape), *cells, estimate]
        )
    headers = ["layer", "role", "weight", *map(part, ratios), "estimate"]
    note = tag("p", "Points of accuracy with 95 % intervals; * stopped early. Estimates are from "
               "gradients of the untrained model, in units of their own.")  # fmt: skip
    return joined([html_table(headers, rows, words=(0, 1, 2)), note])


def _cell(gain: Gain | None, most: int) -> str:
    if gain is None:
        return NOTHING
    return with_interval(gain) + ("*" if gain.steps < most else "")


def _biases(sensitivity: Sensitivity, chosen: FrontPoint | None) -> Markup:
    count = len(sensitivity.layers)
    rows = [
        (str(k), sensitivity.layers[count - k].name, with_interval(gain), percent(gain.accuracy))
        for k, gain in enumerate(sensitivity.biases, start=1)
    ]
    headers = ("last", "down to layer", "gain, points", "accuracy")
    return _section(
        "biases", "Gain of biases",
        tag("p", "Biases are small, but their gradients must pass through all later layers: "
            "how far back is it worth going?"),
        bias_chart(sensitivity, chosen.choice if chosen else None),
        folded("Biases as a table", html_table(headers, rows, words=(0, 1))),
    )  # fmt: skip


def _costs(layers: Sequence[Layer], costs: Sequence[LayerCost]) -> Markup:
    rows = [
        (
            f"{cost.layer}  {layers[cost.layer].name}",
            of_weight(cost.ratio) if cost.ratio else "biases from here on",
            bytes_text(cost.memory_bytes), ms_text(cost.step_ms), joules_text(cost.joules),
        )
        for cost in sorted(costs, key=lambda cost: (cost.layer, cost.ratio))
    ]  # fmt: skip
    headers = ("layer", "updated", "memory", "time", "energy")
    last = max(cost.layer for cost in costs)
    return _section(
        "costs", "Cost of each layer",
        tag("p", "What a training step takes more: for biases, than the head alone; for a weight, "
            "than a backward pass that reaches its layer anyway."),
        *cost_charts(layers, costs),
        tag("p", costs_hint(layers, last, costs), class_="told", role="status", data_layer=last),
        folded("Costs as a table", html_table(headers, rows, words=(0, 1))),
    )  # fmt: skip


def _checked(layers: Sequence[Layer], checked: Sequence[Checked]) -> Markup:
    inside = sum(each.low <= each.predicted <= each.high for each in checked)
    rows = [
        (
            choice_text(each.choice, layers), points(each.predicted), points(each.measured),
            f"{points(each.low)} to {points(each.high)}",
        )
        for each in checked
    ]  # fmt: skip
    headers = ("updates", "predicted", "measured", "95 % interval")
    return _section(
        "checked", "Predicted against measured",
        tag("p", f"{counted(len(checked), 'choice')} trained as a whole, to see whether gains of "
            f"parts add up. The interval holds the prediction in {inside} of {len(checked)}."),
        tag("div", checked_chart(checked, layers), class_="narrow"),
        folded("Predicted against measured as a table", html_table(headers, rows)),
    )  # fmt: skip


def _settings(sensitivity: Sensitivity) -> Markup:
    rows = [
        (str(name).replace("_", " "), str(value)) for name, value in sensitivity.settings.items()
    ]
    data = b64encode(to_csv(sensitivity).encode()).decode()
    link = tag(
        "a",
        "Download all figures as CSV",
        href=f"data:text/csv;base64,{data}",
        download="sensitivity.csv",
    )
    listed = [html_table(("setting", "value"), rows, words=(0, 1))] if rows else []
    return _section("settings", "How it was measured", *listed, tag("p", link))
