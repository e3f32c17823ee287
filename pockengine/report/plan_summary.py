"""The memory plan of a model in figures: regions, entry points, and what is largest at the peak."""

from __future__ import annotations

from typing import Any

from tabulate import tabulate

from pockengine.plan.memory import EntryPlan, Plan, Value
from pockengine.report.inspect_graph import Inspection

_MIB = 1 << 20


def plan_summary(found: Inspection, top: int = 10) -> dict[str, Any]:
    """Bytes by region and entry point, fit for JSON.

    Args:
        found: a prepared trainer.
        top: how many of the values that are live at an entry point's worst step are listed.
    """
    plan = found.prepared.plan
    return {
        "target": found.prepared.target.name,
        "region_bytes": regions(plan),
        "total_bytes": sum(plan.region_bytes),
        "lower_bound_bytes": plan.lower_bound_bytes,
        "saved_bytes": plan.saved_bytes,
        "entries": {
            name: _entry(entry, found.owners(name), top) for name, entry in plan.entries.items()
        },
    }


def regions(plan: Plan) -> dict[str, int]:
    """Bytes of each region by its name."""
    return dict(zip(("const", "param", "state", "arena"), plan.region_bytes, strict=True))


def _entry(entry: EntryPlan, owners: dict[str, str], top: int) -> dict[str, Any]:
    step, live = worst_step(entry)
    largest = sorted(live, key=lambda value: -value.nbytes)[:top]
    return {
        "kernels": len(entry.order),
        "arena_bytes": entry.arena_bytes,
        "lower_bound_bytes": entry.lower_bound_bytes,
        "saved_bytes": entry.saved_bytes,
        "worst_step": step,
        "largest": [_value(value, owners.get(value.name, "")) for value in largest],
    }


def worst_step(entry: EntryPlan) -> tuple[int, list[Value]]:
    """The step at which the most bytes are live, and the values that are."""
    starts = sorted({value.lower for value in entry.values})
    alive = {s: [v for v in entry.values if v.lower <= s < v.upper] for s in starts}
    if not alive:
        return 0, []
    step = max(alive, key=lambda s: sum(value.nbytes for value in alive[s]))
    return step, alive[step]


def _value(value: Value, owner: str) -> dict[str, Any]:
    return {
        "name": value.name,
        "tensor": owner,
        "nbytes": value.nbytes,
        "offset": value.offset,
        "first_step": value.lower,
        "last_step": value.upper - 1,
    }


def summary_table(summary: dict[str, Any]) -> str:
    """A ``plan_summary`` for a terminal."""
    sizes = [(name, _mib(size)) for name, size in summary["region_bytes"].items()]
    rows = [
        (
            *(name, entry["kernels"]),
            *(_mib(entry[key]) for key in ("arena_bytes", "lower_bound_bytes", "saved_bytes")),
        )
        for name, entry in summary["entries"].items()
    ]
    heads = ("entry point", "kernels", "arena MiB", "lower bound MiB", "saved MiB")
    parts = [
        f"{summary['target']}: {_mib(summary['total_bytes'])} MiB",
        tabulate([*sizes, ("together", _mib(summary["total_bytes"]))], headers=("region", "MiB")),
        tabulate(rows, headers=heads, disable_numparse=True, colalign=("left", *["right"] * 4)),
    ]
    for name, entry in summary["entries"].items():
        if entry["largest"]:
            parts.append(_largest(name, entry))
            break
    return "\n\n".join(parts)


def _largest(name: str, entry: dict[str, Any]) -> str:
    rows = [
        (v["name"], v["tensor"], _mib(v["nbytes"]), f"{v['first_step']}-{v['last_step']}")
        for v in entry["largest"]
    ]
    heads = ("value", "belongs to", "MiB", "steps")
    title = f"Largest values at the worst step of {name} ({entry['worst_step']}):"
    return f"{title}\n{tabulate(rows, headers=heads, disable_numparse=[0, 1, 3])}"


def _mib(nbytes: int) -> str:
    return f"{nbytes / _MIB:.3f}"
