"""Reports as text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from pockengine.report.timing import ORDERS, Timing
from pockengine.targets import TARGETS, Target

if TYPE_CHECKING:
    from pockengine.lower.tile_parameters import Choice
    from pockengine.optimizer import Optimizer
    from pockengine.report.bench import Bench
    from pockengine.report.peaks import Peaks
    from pockengine.report.storage import Stored
    from pockengine.report.timing import Agreement
    from pockengine.report.tune import Tuned

_RATES = ("ms", "lost ms", "predicted", "GFLOP/s", "GB/s", "bound by", "share of peak")
_RATE_FORMATS = (".4f", ".4f", ".4f", ".1f", ".1f", "", ".0%")


def plan_table(found: Mapping[str, Any]) -> str:
    """What ``plan_buffers`` found."""
    offsets = tabulate(found["offsets"].items(), headers=("id", "offset"))
    peak, bound = found["peak"], found["lower_bound"]
    gap = f"{peak / bound - 1:.2%}" if bound else "none"
    return (
        f"{offsets}\n\npeak {peak} bytes, lower bound {bound} bytes, gap {gap}, "
        f"{found['seconds']:.3f} s"
    )


def target_table() -> str:
    """The targets, one a line."""
    rows = [
        (target.name, target.description, _memory(target), target.zig_triple or "")
        for target in TARGETS.values()
    ]
    return tabulate(rows, headers=("name", "description", "memory", "triple"))


def targets_as_dict() -> dict[str, dict[str, Any]]:
    """The targets with all that is known of them, fit for JSON."""
    return {name: _as_dict(target) for name, target in TARGETS.items()}


def _as_dict(target: Target) -> dict[str, Any]:
    found = {field.name: getattr(target, field.name) for field in fields(target)}
    return {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in found.items()
    }


def _memory(target: Target) -> str:
    parts = {"SRAM": target.sram_bytes, "flash": target.flash_bytes, "DRAM": target.dram_bytes}
    return ", ".join(f"{size >> 10} KiB {name}" for name, size in parts.items() if size)


def optimizer_text(optimizer: Optimizer) -> str:
    """An optimizer as it would be written, without what is left at its default."""
    given = (
        f"{field.name}={getattr(optimizer, field.name)!r}"
        for field in fields(optimizer)
        if getattr(optimizer, field.name) != field.default
    )
    return f"{type(optimizer).__name__}({', '.join(given)})"


def bench_table(found: Bench, top: int | None = None, order: str = "lost") -> str:
    """A bench: its kernels, its kinds, its total, the peaks and how well the cost model did.

    Args:
        found: the bench.
        top: only the first so many kernels; None for all.
        order: of ``report.timing.ORDERS``.
    """
    kernels = sorted(found.kernels, key=ORDERS[order])[:top]
    each = [(timing.name, timing.kind, *_rates(timing)) for timing in kernels]
    sums = [(timing.kind, timing.calls, *_rates(timing)) for timing in (*found.kinds, found.total)]
    return "\n\n".join(
        (
            _timing_table(("kernel", "kind"), each),
            _timing_table(("together", "calls"), sums),
            _summary(found),
        )
    )


def _rates(timing: Timing) -> tuple[float | str, ...]:
    return (
        *(timing.ms, timing.lost_ms, timing.predicted_ms),
        *(timing.gflops_per_s, timing.gbytes_per_s, timing.limit, timing.peak_share),
    )


def _timing_table(names: tuple[str, str], rows: Sequence[tuple[Any, ...]]) -> str:
    formats = ("", "", *_RATE_FORMATS)
    return tabulate(rows, headers=(*names, *_RATES), floatfmt=formats, disable_numparse=[0])


def _summary(found: Bench) -> str:
    peaks = found.peaks
    const, param, state, arena = (size / 2**20 for size in found.region_bytes)
    lines = [
        f"step {found.step_ms:.3f} ms with {found.threads} thread(s), median of {found.runs}",
        f"memory: const {const:.2f}, param {param:.2f}, state {state:.2f}, arena {arena:.2f} MiB",
        f"peaks of {_cores(found)}: {peaks.flops_per_s / 1e9:.1f} GFLOP/s; {_copies(peaks)}",
        _prediction(found.agreement),
    ]
    if found.eager_ms is not None:
        ratio = found.eager_ms / found.step_ms
        lines.insert(1, f"PyTorch eager {found.eager_ms:.3f} ms: {ratio:.2f} times ours")
    return "\n".join(lines)


def _cores(found: Bench) -> str:
    return "one core" if found.threads == 1 else f"{found.threads} threads"


def _copies(peaks: Peaks) -> str:
    *caches, beyond = peaks.memories
    parts = [
        f"{cache.bytes_per_s / 1e9:.1f} GB/s in {cache.name} ({cache.nbytes >> 10} KiB)"
        for cache in caches
    ]
    return "copies at " + ", ".join([*parts, f"{beyond.bytes_per_s / 1e9:.1f} GB/s beyond"])


def _prediction(found: Agreement) -> str:
    if found.median_ratio is None:
        return "predicted: no kernel took time"
    rank = "unknown" if found.spearman is None else f"{found.spearman:.2f}"
    return (
        f"predicted over measured: {found.median_ratio:.2f} in the median, "
        f"{found.total_ratio:.2f} in total; rank correlation (Spearman) {rank}"
    )


def tuned_table(found: Tuned) -> str:
    """A search: the choices that were kept, and the step with and without them."""
    rows = [
        (gain.signature, gain.before_ms, gain.after_ms, _choice(gain.choice))
        for gain in found.standing.gains
    ]
    headers = ("contraction", "ms before", "ms after", "register tile, block, right operand")
    standing = found.standing
    return (
        f"{tabulate(rows, headers=headers, floatfmt='.4f')}\n\n"
        f"{standing.contractions} contractions, {standing.tried} choices tried in "
        f"{standing.seconds:.0f} s, {len(rows)} kept\n"
        f"step {found.before_ms:.3f} ms without, {found.after_ms:.3f} ms with the tuning"
    )


def _choice(choice: Choice) -> str:
    way = "in pieces" if choice.blocked else "copied" if choice.packed else "in place"
    tile = f"{choice.row_tile} x {choice.vectors} vectors"
    room = f"{choice.scratch_bytes >> 10} KiB"
    return f"{tile}, {choice.row_block} rows, {way}, {room}"


def storage_table(parts: Sequence[Stored]) -> str:
    """What the cache holds, by part."""
    rows = [
        (
            *(part.name, part.files, f"{part.nbytes / 2**20:.1f}"),
            "" if part.limit_bytes is None else f"{part.limit_bytes / 2**20:.0f}",
            part.description,
        )
        for part in parts
    ]
    return tabulate(rows, headers=("part", "files", "MiB", "at most", "what"))


def metrics_table(found: Mapping[str, Any]) -> str:
    """The metrics of a data set; a confusion matrix with its classes."""
    rows = [
        (name, f"{value:.4f}" if isinstance(value, float) else str(value))
        for name, value in found.items()
        if isinstance(value, (int, float))
    ]
    parts = [tabulate(rows, tablefmt="plain", disable_numparse=True)]
    matrix, classes = found.get("confusion_matrix"), found["classes"]
    if matrix:
        lines = [(name, *counts) for name, counts in zip(classes, matrix, strict=True)]
        parts.append("Rows are true, columns predicted:\n" + tabulate(lines, ("", *classes)))
    return "\n\n".join(parts)


def predictions_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Predictions, one a line and class."""
    rows = [
        (each["input"], *(one["class"], one["score"]))
        for each in found
        for one in each.get("classes", ())
    ]
    if rows:
        return tabulate(rows, ("input", "class", "score"), floatfmt=".3f", disable_numparse=[0, 1])
    return tabulate([(each["input"], str(each["output"])) for each in found], ("input", "output"))
