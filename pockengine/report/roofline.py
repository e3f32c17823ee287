"""A picture of a bench: kernels under the roofs that arithmetic and each memory are.

On the left a roofline (Williams, Waterman and Patterson, "Roofline: an insightful visual
performance model", 2009): arithmetic rate over operations a byte. On the right the rate of traffic
over bytes, where kernels that only move data have their place, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pockengine.errors import InputError
from pockengine.report.bench import Bench
from pockengine.report.peaks import Peaks
from pockengine.report.timing import Timing

_KINDS = 9  # as many colours as can be told apart, and one for the rest
_OTHER = "other"
_FORMATS = (".png", ".svg", ".pdf")
_LARGEST = 300.0  # area of the marker of the kernel that takes longest, in square points


def draw_roofline(found: Bench, path: str | Path, *, title: str = "") -> None:
    """Draw the kernels of a bench, in a colour for each kind, the larger the longer they take.

    Args:
        found: the bench.
        path: of a PNG, SVG or PDF file, by its ending.
        title: above it.

    Raises:
        InputError: the file cannot be written, or its ending is none of these.
    """
    if Path(path).suffix not in _FORMATS:
        raise _unwritable(path, f"the ending {Path(path).suffix!r}")
    figure = Figure(figsize=(14, 6.5), layout="constrained")
    work, traffic = figure.subplots(1, 2)
    colours = _colours(found)
    _rooflines(work, found.peaks, [each for each in found.kernels if each.flops and each.nbytes])
    _stairs(traffic, found.peaks, [each for each in found.kernels if each.nbytes])
    _points(work, found.kernels, colours, lambda each: (each.intensity, each.gflops_per_s))
    _points(traffic, found.kernels, colours, lambda each: (each.nbytes, each.gbytes_per_s))
    figure.suptitle(f"{title}  step {found.step_ms:.3f} ms, {found.threads} thread(s)".strip())
    handles, _ = traffic.get_legend_handles_labels()
    figure.legend(handles=handles, loc="outside right upper", fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise _unwritable(path, str(error.strerror)) from error


def _rooflines(axes: Axes, peaks: Peaks, kernels: Sequence[Timing]) -> None:
    """Arithmetic flat, each memory a slope up to it."""
    top = peaks.flops_per_s / 1e9
    ridges = [peaks.flops_per_s / memory.bytes_per_s for memory in peaks.memories]
    known = [each.intensity for each in kernels]
    left, right = min([*known, *ridges]) / 2, max([*known, *ridges]) * 2
    axes.plot([min(ridges), right], [top, top], color="black", linewidth=1)
    _tell(axes, f"arithmetic {top:.0f} GFLOP/s", right, top, "right")
    for index, (memory, ridge) in enumerate(zip(peaks.memories, ridges, strict=True)):
        rate, at = memory.bytes_per_s / 1e9, left * 3**index  # one label beside the other
        axes.plot([left, ridge], [rate * left, top], color="black", linewidth=1, linestyle=":")
        _tell(axes, f"{memory.name} {rate:.1f} GB/s", at, rate * at, "left")
    axes.set(xscale="log", yscale="log", xlabel="FLOP a byte", ylabel="GFLOP/s")


def _stairs(axes: Axes, peaks: Peaks, kernels: Sequence[Timing]) -> None:
    """A step for each memory, as wide as what it holds."""
    known = [each.nbytes for each in kernels]
    begin = min([*known, peaks.memories[0].nbytes]) / 2
    last = max([*known, *(memory.nbytes for memory in peaks.memories)])
    for memory in peaks.memories:
        beyond = memory is peaks.memories[-1]
        end, rate = last if beyond else memory.nbytes, memory.bytes_per_s / 1e9
        axes.plot([begin, end], [rate, rate], color="black", linewidth=1, linestyle=":")
        side = ("right", end) if beyond else ("left", begin)
        _tell(axes, f"{memory.name} {rate:.1f} GB/s", side[1], rate, side[0])
        begin = end
    axes.set(xscale="log", yscale="log", xlabel="bytes", ylabel="GB/s")


def _tell(axes: Axes, text: str, x: float, y: float, side: str) -> None:
    axes.annotate(
        text, (x, y), (0, 3), textcoords="offset points", ha=side, fontsize="small"
    )  # above the line


def _points(
    axes: Axes,
    kernels: Sequence[Timing],
    colours: Mapping[str, Any],
    place: Any,
) -> None:
    most = max((each.ms for each in kernels), default=1.0) or 1.0
    for kind, colour in colours.items():
        chosen = [each for each in kernels if _drawn(each, colours) == kind]
        shown = [(*place(each), each.ms) for each in chosen]
        shown = [point for point in shown if min(point) > 0]
        across, up, sizes = ([point[i] for point in shown] for i in range(3))
        areas = [8 + _LARGEST * size / most for size in sizes]
        axes.scatter(across, up, areas, color=colour, label=kind, alpha=0.7, edgecolors="white")


def _drawn(timing: Timing, colours: Mapping[str, Any]) -> str:
    return timing.kind if timing.kind in colours else _OTHER


def _colours(found: Bench) -> dict[str, Any]:
    """A colour for each of the kinds that take the most time."""
    palette = colormaps["tab10"]
    kinds = [kind.kind for kind in found.kinds]
    named = {kind: palette(index) for index, kind in enumerate(kinds[:_KINDS])}
    return {**named, _OTHER: "lightgrey"} if len(kinds) > _KINDS else named


def _unwritable(path: str | Path, found: str) -> InputError:
    return InputError(
        where=f"--picture {path}",
        found=found,
        needed="a place that can be written, with the ending .png, .svg or .pdf",
        remedy="Name another file",
    )
