"""A training step, beside PyTorch eager: time, transient memory, and seconds to the first step.

    python -m experiments.step_time.run                         all; writes result.json, table.md
    python -m experiments.step_time.run --part start            only the start
    python -m experiments.step_time.run --case mobilenet_v2-b1  one, printed only

Each measurement has a process of its own (measure.py). Nothing else should run meanwhile; the load
that was found is written down.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tabulate import tabulate

from experiments.step_time.settings import CASES, START_CASE, START_GOALS_S

HERE = Path(__file__).parent
RESULT = HERE / "result.json"


def measured(case: str, what: str, threads: int, cache: str | None = None) -> dict[str, Any]:
    """What measure.py prints, with the load ahead of it."""
    load = round(os.getloadavg()[0], 2)
    environment = dict(os.environ) if cache is None else {**os.environ, "XDG_CACHE_HOME": cache}
    module = "experiments.step_time.measure"
    done = subprocess.run(
        [sys.executable, "-m", module, case, what, "--threads", str(threads)],
        cwd=HERE.parents[1],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return {"case": case, "load": load, **json.loads(done.stdout)}


def starts() -> list[dict[str, Any]]:
    """Cold: an empty cache folder. Warm: the same one, in a fresh process."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as cache:
        return [
            {"start": kind, "goal_s": goal, **measured(START_CASE, "start", cores, cache)}
            for kind, goal in START_GOALS_S.items()
        ]


def machine() -> dict[str, Any]:
    """What it ran on, and when."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def speed_row(row: dict[str, Any]) -> tuple[object, ...]:
    """A measurement beside its goals."""
    goal, saved, arena = CASES[row["case"]], row["torch_saved_bytes"], row["arena_bytes"]
    return (
        row["case"],
        f"{row['torch_ms']:.1f}",
        f"{row['ms']:.1f}",
        f"{row['torch_ms'] / row['ms']:.2f}x",
        f"{row['torch_cpu_ms'] / row['cpu_ms']:.2f}x",
        f"{goal.speed_goal:g}x",
        f"{saved / 1e6:.1f}",
        f"{arena / 1e6:.1f}",
        f"{arena / saved:.0%}",
        f"{goal.memory_goal:.0%}",
        row["load"],
    )


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    speeds = [speed_row(row) for row in result["speed"]]
    times = ("PyTorch ms", "ms", "speed", "by CPU time", "goal")
    heads = ("case", *times, "PyTorch saves MB", "arena MB", "share", "goal", "load")
    first = tabulate(speeds, heads, tablefmt="github")
    begun = [
        (row["start"], row["case"], row["seconds"], row["cpu_seconds"], row["goal_s"], row["load"])
        for row in result["start"]
    ]
    start_heads = ("start", "case", "s to first step", "CPU s", "goal s", "load")
    second = tabulate(begun, start_heads, tablefmt="github")
    where = result["machine"]
    told = f"{where['processor']}, {where['cores']} cores, {where['system']}, {where['date']}."
    return f"{told}\n\n{first}\n\n{second}\n"


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=sorted(CASES), help="the speed of one, printed only")
    parser.add_argument("--part", choices=("speed", "start"), help="only this; keep the other")
    options = parser.parse_args()
    if options.case:
        result = {"machine": machine(), "speed": [measured(options.case, "speed", 1)], "start": []}
    else:
        kept = json.loads(RESULT.read_text(encoding="utf-8")) if options.part else {}
        result = {**kept, "machine": machine()}
        if options.part != "start":
            result["speed"] = [measured(case, "speed", 1) for case in CASES]
        if options.part != "speed":
            result["start"] = starts()
        RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        (HERE / "table.md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
