"""A picture of a memory plan: each value a rectangle, its steps across, its bytes upwards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from pockengine.errors import InputError
from pockengine.plan.memory import EntryPlan, Value

_LAYERS = 19  # as many colours as can be told apart, and one for the rest
_OTHER = "other"
_MIB = 1 << 20


def draw_plan(plan: EntryPlan, path: str | Path, *, title: str = "") -> None:
    """Draw an entry point's arena to a PNG file.

    Args:
        plan: of the entry point.
        path: where the picture is written.
        title: above it.

    Raises:
        InputError: the file cannot be written.
    """
    figure = Figure(figsize=(14, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    colours = _colours(plan.values)
    _rectangles(axes, plan.values, colours)
    steps = max((value.upper for value in plan.values), default=1)
    peak, bound = plan.arena_bytes / _MIB, plan.lower_bound_bytes / _MIB
    axes.axhline(peak, color="black", linewidth=1)
    axes.axhline(bound, color="black", linewidth=1, linestyle=":")
    axes.set(xlim=(0, steps), ylim=(0, peak * 1.05 or 1), xlabel="step", ylabel="offset, MiB")
    axes.set_title(f"{title}  arena {peak:.2f} MiB, lower bound {bound:.2f} MiB".strip())
    handles = [Patch(color=colour, label=layer) for layer, colour in colours.items()]
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")
    try:
        figure.savefig(path, format="png", dpi=120)
    except OSError as error:
        raise InputError(
            where=f"--plot {path}",
            found=str(error.strerror),
            needed="a place that can be written",
            remedy="Name another file",
        ) from error


def _rectangles(axes: Axes, values: tuple[Value, ...], colours: dict[str, Any]) -> None:
    patches, faces = [], []
    for value in values:
        corner = (value.lower, value.offset / _MIB)
        patches.append(Rectangle(corner, value.upper - value.lower, value.nbytes / _MIB))
        faces.append(colours[_layer(value) if _layer(value) in colours else _OTHER])
    axes.add_collection(
        PatchCollection(patches, facecolors=faces, edgecolors="white", linewidths=0.3)
    )


def _colours(values: tuple[Value, ...]) -> dict[str, Any]:
    """A colour for each of the layers that hold the most, in the order of the step."""
    held: Counter[str] = Counter()
    for value in values:
        held[_layer(value)] += value.nbytes * (value.upper - value.lower)
    most = {layer for layer, _ in held.most_common(_LAYERS)}
    ordered = [layer for layer in dict.fromkeys(map(_layer, values)) if layer in most - {_OTHER}]
    palette = colormaps["tab20"]
    return {**{layer: palette(index) for index, layer in enumerate(ordered)}, _OTHER: "lightgrey"}


def _layer(value: Value) -> str:
    """The layer that a value belongs to: its module path down to the first number."""
    parts = value.scope.split(".")
    for depth, part in enumerate(parts, start=1):
        if part.isdecimal():
            return ".".join(parts[:depth])
    return parts[0] or _OTHER
