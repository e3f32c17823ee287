"""The sections of the page of a sensitivity: words, a chart, and the same figures as a table."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence

from pockengine.contribution.html.by_layer import (
    contribution_chart,
    cost_charts,
    costs_hint,
    gains_hint,
)
from pockengine.contribution.html.charts import bias_chart, checked_chart, front_chart
from pockengine.contribution.html.markup import Markup, folded, html_table, joined, tag
from pockengine.contribution.html.network import network, reach_text
from pockengine.contribution.layers import Layer
from pockengine.contribution.measured import Gain, Sensitivity
from pockengine.contribution.shown import Checked, FrontPoint, LayerCost
from pockengine.contribution.table import to_csv
from pockengine.contribution.wording import (
    NOTHING,
    bytes_text,
    choice_text,
    counted,
    has_interval,
    joules_text,
    most_steps,
    ms_text,
    of_many,
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


def _section(name: str, heading: str, *children: str) -> Markup:
    return tag(
        "section", tag("h2", heading, id=f"{name}-title"), *children,
        id=name, aria_labelledby=f"{name}-title",
    )  # fmt: skip


def chosen_section(sensitivity: Sensitivity, chosen: FrontPoint | None, command: str) -> Markup:
    """What is updated, where the backward pass ends, and how to compile it."""
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


def front_section(
    sensitivity: Sensitivity, front: Sequence[FrontPoint], chosen: FrontPoint | None
) -> Markup:
    """The best choices by memory."""
    layers = sensitivity.layers
    rows = [
        (
            points(point.gain), bytes_text(point.memory_bytes), ms_text(point.step_ms),
            joules_text(point.joules), choice_text(point.choice, layers),
        )
        for point in sorted(front, key=lambda point: point.memory_bytes)
    ]  # fmt: skip
    headers = ("gain, points", "memory", "step", "energy", "updates")
    told = of_many(sensitivity)
    return _section(
        "front", "Gain against memory",
        tag("p", "Each point is the best choice for its memory: predicted from the gains "
            "of its parts."),
        *([] if told is None else [tag("p", told)]),
        front_chart(front, chosen, layers),
        folded("Best choices as a table", html_table(headers, rows, words=(4,))),
    )  # fmt: skip


def weights_section(sensitivity: Sensitivity, costs: Sequence[LayerCost]) -> Markup:
    """What each part of each weight gains."""
    best, _ = max(sensitivity.weights, key=lambda key: sensitivity.weights[key].mean)
    return _section(
        "weights", "Gain of each weight",
        tag("p", "What updating a part of one layer's weight adds to training the biases from that "
            f"layer on. {_spread(sensitivity)} Point at a layer, or use the arrow keys, for its "
            "figures."),
        contribution_chart(sensitivity),
        tag("p", gains_hint(sensitivity, best), class_="told", role="status", data_layer=best),
        tag("h3", "The most valuable weights"),
        _best(sensitivity, costs),
        folded("All weights as a table", _weight_table(sensitivity)),
    )  # fmt: skip


def _spread(sensitivity: Sensitivity) -> str:
    """What is said of intervals."""
    if not any(map(has_interval, sensitivity.weights.values())):
        return "A single seed says nothing of how much of it is chance."
    return (
        "Lines are 95 % intervals over seeds, cut where they leave the chart; pale marks are not "
        "clearly above zero."
    )


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
        rows.append([str(index), part(ratio), with_interval(gain), *cost, layer.role, layer.name])
    headers = ["layer", "part", "gain, points", *["memory"] * bool(costs), "role", "name"]
    return html_table(headers, rows, words=(0, 1, len(headers) - 2, len(headers) - 1))


def _weight_table(sensitivity: Sensitivity) -> Markup:
    ratios, most = ratios_of(sensitivity), most_steps(sensitivity)
    rows = []
    for index, layer in enumerate(sensitivity.layers):
        gains = [sensitivity.weights.get((index, ratio)) for ratio in ratios]
        cells = [_cell(gain, most) for gain in gains]
        estimates = [gain.estimate for gain in gains if gain and gain.estimate is not None]
        estimate = f"{estimates[-1]:.3g}" if estimates else NOTHING
        rows.append([str(index), *cells, estimate, layer.role, shape_text(layer.shape), layer.name])
    headers = ["layer", *map(part, ratios), "estimate", "role", "weight", "name"]
    words = (0, *range(len(headers) - 3, len(headers)))
    note = tag("p", "Points of accuracy with 95 % intervals; * stopped early. Estimates are from "
               "gradients of the untrained model, in units of their own.")  # fmt: skip
    return joined([html_table(headers, rows, words=words), note])


def _cell(gain: Gain | None, most: int) -> str:
    if gain is None:
        return NOTHING
    return with_interval(gain) + ("*" if gain.stopped_early(most) else "")


def biases_section(sensitivity: Sensitivity, chosen: FrontPoint | None) -> Markup:
    """What the biases of the last layers gain."""
    count = len(sensitivity.layers)
    rows = [
        (str(k), with_interval(gain), percent(gain.accuracy), sensitivity.layers[count - k].name)
        for k, gain in enumerate(sensitivity.biases, start=1)
    ]
    headers = ("last", "gain, points", "accuracy", "down to layer")
    return _section(
        "biases", "Gain of biases",
        tag("p", "Biases are small, but their gradients must pass through all later layers: "
            "how far back is it worth going?"),
        bias_chart(sensitivity, chosen.choice if chosen else None),
        folded("Biases as a table", html_table(headers, rows, words=(0, 3))),
    )  # fmt: skip


def costs_section(layers: Sequence[Layer], costs: Sequence[LayerCost]) -> Markup:
    """What each part costs."""
    rows = [
        (
            str(cost.layer), of_weight(cost.ratio) if cost.ratio else "biases from here on",
            bytes_text(cost.memory_bytes), ms_text(cost.step_ms), joules_text(cost.joules),
            layers[cost.layer].name,
        )
        for cost in sorted(costs, key=lambda cost: (cost.layer, cost.ratio))
    ]  # fmt: skip
    headers = ("layer", "updated", "memory", "time", "energy", "name")
    last = max(cost.layer for cost in costs)
    return _section(
        "costs", "Cost of each layer",
        tag("p", "What a training step takes more: for biases, than the head alone; for a weight, "
            "than a backward pass that reaches its layer anyway."),
        *cost_charts(layers, costs),
        tag("p", costs_hint(layers, last, costs), class_="told", role="status", data_layer=last),
        folded("Costs as a table", html_table(headers, rows, words=(0, 1, 5))),
    )  # fmt: skip


def checked_section(layers: Sequence[Layer], checked: Sequence[Checked]) -> Markup:
    """Whether gains of parts add up."""
    inside = sum(each.low <= each.predicted <= each.high for each in checked)
    rows = [
        (
            points(each.predicted), points(each.measured),
            f"{points(each.low)} to {points(each.high)}", choice_text(each.choice, layers),
        )
        for each in checked
    ]  # fmt: skip
    headers = ("predicted", "measured", "95 % interval", "updates")
    return _section(
        "checked", "Predicted against measured",
        tag("p", f"{counted(len(checked), 'choice')} trained as a whole, to see whether gains of "
            f"parts add up. The interval holds the prediction in {inside} of {len(checked)}."),
        tag("div", checked_chart(checked, layers), class_="narrow"),
        folded("Predicted against measured as a table", html_table(headers, rows, words=(3,))),
    )  # fmt: skip


def settings_section(sensitivity: Sensitivity) -> Markup:
    """How it was measured, and all figures to take away."""
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
