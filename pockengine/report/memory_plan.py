"""A picture of a memory plan: each value a rectangle, its steps across, its bytes upwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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


def draw_plan(
    plan: EntryPlan, path: str | Path, *, owners: Mapping[str, str], title: str = ""
) -> None:
    """Draw an entry point's arena to a PNG file, in a colour for each layer.

    Args:
        plan: of the entry point.
        path: where the picture is written.
        owners: the tensor of the model that a value belongs to, by the value's name.
        title: above it.

    Raises:
        InputError: the file cannot be written.
    """
    figure = Figure(figsize=(14, 8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    layers = [_layer(owners.get(value.name, "")) for value in plan.values]
    colours = _colours(plan.values, layers)
    _rectangles(axes, plan.values, [colours.get(layer, colours[_OTHER]) for layer in layers])
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


def _rectangles(axes: Axes, values: tuple[Value, ...], faces: list[Any]) -> None:
    patches = [
        Rectangle(
            (value.lower, value.offset / _MIB), value.upper - value.lower, value.nbytes / _MIB
        )
        for value in values
    ]
    axes.add_collection(
        PatchCollection(patches, facecolors=faces, edgecolors="white", linewidths=0.3)
    )


def _colours(values: tuple[Value, ...], layers: list[str]) -> dict[str, Any]:
    """A colour for each of the layers that hold the most, in the order of the step."""
    held: Counter[str] = Counter()
    for value, layer in zip(values, layers, strict=True):
        held[layer] += value.nbytes * (value.upper - value.lower)
    most = {layer for layer, _ in held.most_common(_LAYERS)} - {_OTHER}
    ordered = [layer for layer in dict.fromkeys(layers) if layer in most]
    palette = colormaps["tab20"]
    return {**{layer: palette(index) for index, layer in enumerate(ordered)}, _OTHER: "lightgrey"}


def _layer(owner: str) -> str:
    """The layer of a tensor: its name down to the first number, or to the module that holds it."""
    *parts, _ = owner.split(".")
    for depth, part in enumerate(parts, start=1):
        if part.isdecimal():
            return ".".join(parts[:depth])
    return ".".join(parts) or _OTHER
