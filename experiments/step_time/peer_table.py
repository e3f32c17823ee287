"""The peers, several threads and the sparse schemes as Markdown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tabulate import tabulate

from experiments.step_time.against import PEERS
from experiments.step_time.settings import (
    CASES,
    FMA_GOAL,
    SPARSE,
    SPARSE_FLOP_GOAL,
    SPARSE_TIME_GOAL,
    THREADS_GOAL,
)

Row = Mapping[str, Any]
_NONE = "-"
_EAGER, _ORT = "eager", "onnxruntime"


def peers_table(rows: Sequence[Row]) -> str:
    """A row for each workload and number of threads, a column for each peer; then what to know."""
    heads = ("case", "threads", "ours ms", *(f"{told} ms" for told in PEERS.values()))
    goals = ("over PyTorch (goal)", "best peer", "over best (goal)", "of FMA peak", "met")
    table = tabulate([_peer_row(row) for row in rows], (*heads, *goals), tablefmt="github")
    return "\n\n".join(part for part in (table, _notes(rows)) if part)


def _peer_row(row: Row) -> tuple[object, ...]:
    times = {name: peer["ms"] for name, peer in row["peers"].items() if "ms" in peer}
    gains = {name: _gain(row["peers"][name]) for name in times}
    best = min(gains, key=lambda name: gains[name]) if gains else None
    goal, share = CASES[row["case"]], peak_share(row)
    over_eager, over_best = gains.get(_EAGER), None if best is None else gains[best]
    wanted = ((over_eager, goal.speed_goal), (over_best, goal.peer_goal))
    met = all(gain is not None and (gain >= at or share >= FMA_GOAL) for gain, at in wanted)
    return (
        row["case"],
        row["threads"],
        f"{row['ours']['ms']:.1f}",
        *(f"{times[name]:.1f}" if name in times else _NONE for name in PEERS),
        _told(*wanted[0]),
        _NONE if best is None else PEERS[best],
        _told(*wanted[1]),
        f"{share:.0%}",
        "yes" if met else "no",
    )


def _gain(peer: Row) -> float:
    """Its time over ours in the same run."""
    return float(peer["ms"] / peer["ours_ms"])


def peak_share(row: Row) -> float:
    """How much of the arithmetic peak of its cores our step reaches."""
    peak = row["peak_flops_per_s"] * row["threads"]
    return float(row["flops"] / (row["ours"]["ms"] * 1e-3) / peak)


def _told(gain: float | None, goal: float) -> str:
    return _NONE if gain is None else f"{gain:.2f}x ({goal:g}x)"


def _notes(rows: Sequence[Row]) -> str:
    """Versions and differences of the peers, and why one has no figure."""
    versions: dict[str, str] = {}
    notes: dict[str, str] = {}
    failures: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in rows:
        for name, peer in row["peers"].items():
            if "failure" in peer:
                failures[name, peer["failure"]].append(f"{row['case']}/{row['threads']}")
            elif peer.get("version"):
                versions[name] = f"{PEERS[name]} {peer['version']}"
                notes[name] = peer["note"]
    lines = [f"- {PEERS[name]}: {note}." for name, note in notes.items() if note]
    lines += [
        f"- {PEERS[name]}, {', '.join(cases)}: not available ({reason})."
        for (name, reason), cases in failures.items()
    ]
    grown = [
        f"{row['case']} {peer['grown_bytes'] / 1e6:.0f} ({row['arena_bytes'] / 1e6:.1f})"
        for row in rows
        if row["threads"] == 1 and "grown_bytes" in (peer := row["peers"].get(_ORT, {}))
    ]
    if grown:
        lines.insert(
            0, f"- MB that {PEERS[_ORT]} takes for its steps (our arena): {', '.join(grown)}."
        )
    peaks = [row["peak_flops_per_s"] / 1e9 for row in rows]
    if peaks:
        measured = f"{min(peaks):.0f} to {max(peaks):.0f} GFLOP/s"
        days = ", ".join(sorted({row["date"] for row in rows}))
        lines.insert(0, f"- FMA peak of one core, measured in the same runs: {measured}; {days}.")
    if versions:
        lines.insert(0, f"- {', '.join(versions.values())}.")
    return "\n".join(lines)


def threads_table(rows: Sequence[Row]) -> str:
    """What a second thread gains, beside what a second core does."""
    found = []
    for row in rows:
        gain = row["one_ms"] / row["several_ms"]
        cores = row["several_flops_per_s"] / row["one_flops_per_s"]
        share = gain / cores
        met = "yes" if share >= THREADS_GOAL else "no"
        times = (f"{row['one_ms']:.1f}", f"{row['several_ms']:.1f}")
        ratios = (f"{gain:.2f}x", f"{cores:.2f}x", f"{share:.2f} ({THREADS_GOAL})")
        found.append((row["case"], row["threads"], *times, *ratios, met))
    heads = ("case", "threads", "on one ms", "ms", "gain", "of the FMA peak", "ratio (goal)", "met")
    return tabulate(found, heads, tablefmt="github")


def sparse_table(rows: Sequence[Row]) -> str:
    """Time and memory of the sparse schemes beside their goals."""
    heads = ("case", "full ms", "sparse ms", "gain", f"{SPARSE_FLOP_GOAL:g} of FLOPs' gain")
    more = ("its kernels in the full step ms", f"ratio (goal {SPARSE_TIME_GOAL:g})", "met")
    times = tabulate([_sparse_times(row) for row in rows], (*heads, *more), tablefmt="github")
    kept = ("case", "parts", "PyTorch full MB", "full arena MB", "share (goal)")
    sparse = ("PyTorch sparse MB", "sparse arena MB", "of PyTorch sparse", "of PyTorch full (goal)")
    memory = [_sparse_memory(row) for row in rows]
    return f"{times}\n\n{tabulate(memory, (*kept, *sparse, 'met'), tablefmt='github')}"


def _sparse_times(row: Row) -> tuple[object, ...]:
    gain = row["full_ms"] / row["sparse_ms"]
    wanted = SPARSE_FLOP_GOAL * row["full_flops"] / row["sparse_flops"]
    ratio = row["kernels_ms"] / row["remaining_ms"]
    return (
        row["case"],
        f"{row['full_ms']:.1f}",
        f"{row['sparse_ms']:.1f}",
        f"{gain:.2f}x",
        f"{wanted:.2f}x",
        f"{row['remaining_ms']:.1f}",
        f"{ratio:.2f}",
        "yes" if gain >= wanted and ratio <= SPARSE_TIME_GOAL else "no",
    )


def _sparse_memory(row: Row) -> tuple[object, ...]:
    full, sparse = row["torch_full_bytes"], row["torch_sparse_bytes"]
    arena, small = row["full_arena_bytes"], row["sparse_arena_bytes"]
    goal, small_goal = CASES[row["case"]].memory_goal, SPARSE[row["case"]].memory_goal
    return (
        row["case"],
        SPARSE[row["case"]].micro_batches,
        f"{full / 1e6:.1f}",
        f"{arena / 1e6:.1f}",
        f"{arena / full:.0%} ({goal:.0%})",
        f"{sparse / 1e6:.1f}",
        f"{small / 1e6:.1f}",
        f"{small / sparse:.0%}",
        f"{small / full:.0%} ({small_goal:.0%})",
        "yes" if arena <= goal * full and small <= small_goal * full else "no",
    )
