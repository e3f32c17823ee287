"""A sensitivity as text: a table for a terminal, and CSV."""

from __future__ import annotations

import csv
import io
from math import isfinite

from tabulate import tabulate

from pockengine.contribution.measured import Gain, Sensitivity
from pockengine.contribution.wording import (
    correlation,
    counted,
    has_interval,
    most_steps,
    of_many,
    part,
    ratios_of,
    shortened,
)

_NAME_WIDTH = 32
_EARLY = "*"

_COLUMNS = (
    *("kind", "layer_index", "layer_name", "weight_name", "role", "block", "weight_shape"),
    *("biases_of_last_layers", "weight_ratio", "gain_fraction"),
    *("gain_low95_fraction", "gain_high95_fraction", "accuracy_fraction"),
    *("steps", "seeds", "stopped_early", "estimate", "expected_fraction"),
)


def table(sensitivity: Sensitivity) -> str:
    """A line a layer, below what was measured and above what the marks mean."""
    ratios = ratios_of(sensitivity)
    headers = ["", "layer", "role", "weight", "biases from here on"]
    headers += [part(ratio) for ratio in ratios]
    rows = [_row(sensitivity, index, ratios) for index in range(len(sensitivity.layers))]
    if _has_estimates(sensitivity):
        headers.append("estimate")
        rows = [[*row, _estimate(sensitivity, i, ratios)] for i, row in enumerate(rows)]
    body = tabulate(rows, headers=headers, disable_numparse=True, colalign=("right",))
    return "\n\n".join([_head(sensitivity), body, _legend(sensitivity)])


def to_csv(sensitivity: Sensitivity) -> str:
    """A row a candidate: the head alone, biases, then weights; gains as fractions of 1."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    most, count = most_steps(sensitivity), len(sensitivity.layers)
    writer.writerow(
        [*_subject(sensitivity, "head", None), 0, "", *_figures(sensitivity.baseline, most)]
    )
    for gain in sensitivity.biases:
        first = count - gain.choice.biases
        subject = _subject(sensitivity, "biases", first)
        writer.writerow([*subject, gain.choice.biases, "", *_figures(gain, most)])
    for (index, ratio), gain in sensitivity.weights.items():
        subject = _subject(sensitivity, "weight", index)
        writer.writerow([*subject, gain.choice.biases, ratio, *_figures(gain, most)])
    return out.getvalue()


def _subject(sensitivity: Sensitivity, kind: str, index: int | None) -> list[object]:
    if index is None:
        return [kind, "", "", "", "", "", ""]
    layer = sensitivity.layers[index]
    shape = "x".join(map(str, layer.shape))
    return [kind, index, layer.name, layer.weight, layer.role, layer.block, shape]


def _figures(gain: Gain, most: int) -> list[object]:
    estimate = "" if gain.estimate is None else gain.estimate
    early = int(gain.stopped_early(most))
    interval = [gain.low, gain.high] if has_interval(gain) else ["", ""]
    figures = [gain.mean, *interval, gain.accuracy, gain.steps, gain.seeds]
    return [*figures, early, estimate, gain.counted]


def _row(sensitivity: Sensitivity, index: int, ratios: list[float]) -> list[str]:
    layer, most = sensitivity.layers[index], most_steps(sensitivity)
    last = len(sensitivity.layers) - index
    biases = sensitivity.biases[last - 1] if last <= len(sensitivity.biases) else None
    gains = [sensitivity.weights.get((index, ratio)) for ratio in ratios]
    name, shape = shortened(layer.name, _NAME_WIDTH), "x".join(map(str, layer.shape))
    cells = [_cell(gain, most) for gain in (biases, *gains)]
    return [str(index), name, layer.role, shape, *cells]


def _cell(gain: Gain | None, most: int) -> str:
    if gain is None:
        return ""
    interval = f" [{_points(gain.low)}, {_points(gain.high)}]" if has_interval(gain) else ""
    return f"{_points(gain.mean)}{interval}{_EARLY if gain.stopped_early(most) else ''}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}" if isfinite(fraction) else "-"


def _has_estimates(sensitivity: Sensitivity) -> bool:
    return any(gain.estimate is not None for gain in sensitivity.weights.values())


def _estimate(sensitivity: Sensitivity, index: int, ratios: list[float]) -> str:
    """Of the largest part that one was made for."""
    gains = [sensitivity.weights.get((index, ratio)) for ratio in ratios]
    found = [gain.estimate for gain in gains if gain and gain.estimate is not None]
    return f"{found[-1]:.3g}" if found else ""


def _head(sensitivity: Sensitivity) -> str:
    base = sensitivity.baseline
    seeds = counted(base.seeds, "seed")
    layers = counted(len(sensitivity.layers), "layer")
    steps = counted(most_steps(sensitivity), "step")
    lines = [
        f"head alone: {base.accuracy:.1%} of held-out examples right",
        f"{layers}, {seeds}, up to {steps} each",
    ]
    if sensitivity.rank_correlation is not None:
        lines.append(f"rank correlation of estimates: {correlation(sensitivity.rank_correlation)}")
    return "\n".join(lines)


def _legend(sensitivity: Sensitivity) -> str:
    lines = [
        "Gains are points of accuracy, with 95 % intervals over seeds in brackets.",
        "biases from here on: the biases of this layer and of all after it, over the head alone;",
        "a part of the weight's input channels: over just those biases.",
    ]
    most = most_steps(sensitivity)
    gains = (*sensitivity.biases, *sensitivity.weights.values())
    if any(each.stopped_early(most) for each in gains):
        lines.append(f"{_EARLY} stopped early, as it was falling behind.")
    if any(each.expected is not None for each in gains):
        lines.append("The search draws them to the estimates as far as they are noise (CSV).")
    told = of_many(sensitivity)
    lines += [] if told is None else [told]
    if any(each.steps == 0 for each in gains):
        lines.append("Estimated: shares of what all biases, and all weights, gained together.")
    if _has_estimates(sensitivity):
        lines.append("estimate: from gradients of the untrained model, in units of its own.")
    return "\n".join(lines)
