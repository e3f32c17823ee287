"""A training step of every architecture of the zoo beside PyTorch eager: time, transient memory.

python -m experiments.zoo.run                      what has no result yet
python -m experiments.zoo.run --only 'resnet*'     some again

Writes result.json and table.md after each. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tabulate import tabulate

from tests.zoo import ZOO

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULT = HERE / "result.json"
Outcome = dict[str, Any]


def attempt(name: str) -> Outcome:
    """What measure.py prints, or why it failed; with the load ahead of it."""
    load = round(os.getloadavg()[0], 2)
    ran = subprocess.run(
        [sys.executable, "-m", "experiments.zoo.measure", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        return {"load": load, "failure": ran.stderr.strip().splitlines()[-1][:300]}
    return {"load": load, **json.loads(ran.stdout)}


def table(outcomes: Mapping[str, Outcome]) -> str:
    """The results as Markdown."""
    rows = [
        (name, *_figures(outcomes[name]), outcomes[name]["load"])
        for name in ZOO
        if name in outcomes
    ]
    heads = ("model", "parameters", "PyTorch ms", "ms", "speed", "PyTorch saves MB", "arena MB")
    return tabulate(rows, (*heads, "share", "load"), tablefmt="github") + "\n"


def _figures(found: Outcome) -> tuple[object, ...]:
    if "failure" in found:
        return ("", "", found["failure"], "", "", "", "")
    saved, arena = found["torch_saved_bytes"], found["arena_bytes"]
    return (
        f"{found['parameters'] / 1e6:.2f} M",
        f"{found['torch_ms']:.1f}",
        f"{found['ms']:.1f}",
        f"{found['torch_ms'] / found['ms']:.2f}x",
        f"{saved / 1e6:.2f}",
        f"{arena / 1e6:.2f}",
        f"{arena / saved:.0%}",
    )


def main() -> None:
    """Measure what has no result, or what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", help="a shell pattern of names, which are measured again")
    options = parser.parse_args()
    kept: dict[str, Outcome] = {}
    if RESULT.exists():
        kept = json.loads(RESULT.read_text(encoding="utf-8"))
    for name in ZOO:
        if fnmatchcase(name, options.only) if options.only else name not in kept:
            kept[name] = attempt(name)
            print(name, kept[name], flush=True)
            RESULT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
            (HERE / "table.md").write_text(table(kept), encoding="utf-8")
    print(table(kept))


if __name__ == "__main__":
    main()
