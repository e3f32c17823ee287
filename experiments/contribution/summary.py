"""What `compare` found, as tables: `python -m experiments.contribution.summary` writes table.md."""

from __future__ import annotations

import csv
import json
from itertools import combinations
from statistics import fmean
from typing import Any

from tabulate import tabulate

from experiments.contribution.run import HERE
from pockengine.contribution.intervals import pooled, rank_correlation

_OTHERS = ("all", "biases", "last layers")


def _interval(values: list[float]) -> tuple[float, float]:
    """Mean, and lower end of its 95 % interval, in points."""
    mean, samples = fmean(values), 1  # which count only where there is one seed
    half = pooled([values], samples).half_width(len(values))
    return 100 * mean, 100 * (mean - half)


def _differences(arms: dict[str, Any], other: str) -> list[float]:
    """The chosen scheme less another, by seed."""
    pairs = zip(arms["chosen"]["accuracies"], arms[other]["accuracies"], strict=True)
    return [ours - theirs for ours, theirs in pairs]


def _with_limit(values: list[float]) -> str:
    mean, low = _interval(values)
    return f"{mean:+.1f} (> {low:+.1f})"


def _arms(found: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, each in found.items():
        arms, taken = each["arms"], each["step_ms"]
        whole = arms["all"]
        rows.append(
            [
                name,
                *(f"{100 * fmean(arms[arm]['accuracies']):.1f}" for arm in arms),
                *(_with_limit(_differences(arms, other)) for other in _OTHERS),
                f"{100 * arms['chosen']['arena_bytes'] / each['torch_saved_bytes']:.0f} %",
                f"{100 * arms['chosen']['arena_bytes'] / whole['arena_bytes']:.0f} %",
                f"{taken['all'] / taken['chosen']:.2f}x",
            ]
        )
    arms = list(next(iter(found.values()))["arms"])
    together = [
        [fmean(seeds) for seeds in zip(*differences, strict=True)]
        for differences in (
            [_differences(each["arms"], other) for each in found.values()] for other in _OTHERS
        )
    ]
    rows.append(["all pairs, by seed", *("" for _ in arms), *map(_with_limit, together)])
    heads = ["pair", *arms, *(f"chosen - {x}" for x in _OTHERS)]
    return tabulate(
        rows, [*heads, "arena of what PyTorch saves", "of all's", "speed"], tablefmt="github"
    )


def _reliability(gains: list[list[float]]) -> float | None:
    """Rank correlation of the mean over seeds with that of as many other seeds.

    From that of single seeds, by Spearman and Brown's formula.
    """
    seeds = list(zip(*gains, strict=True))
    found = [rank_correlation(list(zip(a, b, strict=True))) for a, b in combinations(seeds, 2)]
    known = [x for x in found if x is not None]
    single = fmean(known) if known else None
    return None if single is None else len(seeds) * single / (1 + (len(seeds) - 1) * single)


def _predictions(found: dict[str, list[Any]]) -> str:
    rows = []
    for name, schemes in found.items():
        pairs = [(scheme["predicted"], fmean(scheme["gains"])) for scheme in schemes]
        gains = [100 * gain for _, gain in pairs]
        agreement = rank_correlation(pairs)
        reliable = _reliability([scheme["gains"] for scheme in schemes])
        told = [f"{x:.2f}" if x is not None else "-" for x in (agreement, reliable)]
        rows.append([name, len(schemes), f"{min(gains):+.1f} to {max(gains):+.1f}", *told])
    heads = ["pair", "schemes", "measured gains", "rank correlation", "of a second measurement"]
    return tabulate(rows, heads, tablefmt="github")


def _roles(name: str) -> str:
    """Of a full profile: by role, how many candidates lasted to the end, and what they gained."""
    with (HERE / f"{name}.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "weight"]
    lines = []
    for role in dict.fromkeys(row["role"] for row in rows):
        own = [row for row in rows if row["role"] == role]
        whole = [row for row in own if row["stopped_early"] == "0"]
        gains = [100 * float(row["gain_fraction"]) for row in whole]
        kept = f"{100 * len(whole) / len(own):.0f} %"
        lines.append([role, len(own), kept, f"{fmean(gains):+.1f}" if gains else "-"])
    heads = [f"{name}: role", "candidates", "trained to the end", "mean gain of these"]
    return tabulate(lines, heads, tablefmt="github", disable_numparse=True)


def _read(part: str) -> dict[str, Any]:
    files = sorted((HERE / part).glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in files}


def main() -> None:
    """Write table.md from all pairs that were compared, and their full profiles."""
    found, predicted = _read("compared"), _read("predicted")
    full = [name for name in found if (HERE / f"{name}.csv").exists()]
    parts = [_arms(found), _predictions(predicted), *map(_roles, full)]
    (HERE / "table.md").write_text("\n\n".join(parts) + "\n")
    print((HERE / "table.md").read_text())


if __name__ == "__main__":
    main()
