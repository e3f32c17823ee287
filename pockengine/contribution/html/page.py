"""The page of a sensitivity: which layers a device should update, on one sheet for any browser.

It holds its style, its script, its charts and its figures itself, and fetches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template

from pockengine.contribution.html.markup import Markup, joined, tag
from pockengine.contribution.html.sections import (
    biases_section,
    checked_section,
    chosen_section,
    costs_section,
    front_section,
    settings_section,
    weights_section,
)
from pockengine.contribution.measured import Sensitivity
from pockengine.contribution.shown import Checked, FrontPoint, LayerCost, check_fits
from pockengine.contribution.wording import (
    all_gains,
    bytes_text,
    correlation,
    counted,
    has_interval,
    is_clear,
    joules_text,
    most_steps,
    ms_text,
    part,
    percent,
    points,
)


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

    Raises:
        InputError: a cost or a choice is of a model with more layers.
    """
    check_fits(sensitivity, costs, [*front, *checked, *([chosen] if chosen else [])])
    sections = [
        chosen_section(sensitivity, chosen, command) if chosen or command else None,
        front_section(sensitivity, front, chosen) if front else None,
        weights_section(sensitivity, costs) if sensitivity.weights else None,
        biases_section(sensitivity, chosen) if sensitivity.biases else None,
        costs_section(sensitivity.layers, costs) if costs else None,
        checked_section(sensitivity.layers, checked) if checked else None,
        settings_section(sensitivity),
    ]
    files = resources.files(__package__)
    return Template((files / "sensitivity.html").read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=(files / "sensitivity.css").read_text(encoding="utf-8"),
        script=(files / "sensitivity.js").read_text(encoding="utf-8"),
        summary=joined([_summary(sensitivity), _tiles(sensitivity, chosen)]),
        sections=joined([section for section in sections if section]),
    )


def _summary(sensitivity: Sensitivity) -> Markup:
    """What was measured, in two sentences."""
    base, steps = sensitivity.baseline, counted(most_steps(sensitivity), "training step")
    count = counted(len(sensitivity.layers), "layer")
    if any(gain.steps == 0 for gain in all_gains(sensitivity)):
        return tag(
            "p",
            f"The gains of {count} are estimated from gradients: shares of what all biases, and "
            "all weights, gained together when they were fine-tuned and tried on held-out "
            f"examples. Training only the head gets {percent(base.accuracy)} of them right; a gain "
            "is how many percentage points more a part may get right.",
            class_="lead",
        )
    return tag(
        "p",
        f"The biases and weights of {count} were fine-tuned a part at a time, with "
        f"{counted(base.seeds, 'seed')} of up to {steps}, and tried on held-out examples. "
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
    if any(map(has_interval, gains)):
        clear = sum(map(is_clear, gains))
        found.append(("clearly above zero", f"{clear} of {len(gains)}", "by their 95 % intervals"))
    if sensitivity.rank_correlation is not None:
        text = correlation(sensitivity.rank_correlation)
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
