"""A training step beside PyTorch and other peers: time, transient memory, seconds to begin.

    python -m experiments.step_time.run                         all; writes result.json, table.md
    python -m experiments.step_time.run --part start            only the start
    python -m experiments.step_time.run --part peers            the peers that have no figure yet
    python -m experiments.step_time.run --part sparse --case resnet18-b8 --again
    python -m experiments.step_time.run --case mobilenet_v2-b1  one beside PyTorch, printed only

Each measurement has a process of its own (measure.py, threads.py, sparse.py, peers). Nothing else
should run meanwhile; the load that was found is written down. All but speed and start are written
after each workload, and a run goes on where the last one stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tabulate import tabulate

from experiments.step_time.against import PEERS, Turns, against
from experiments.step_time.peer_table import peers_table, sparse_table, threads_table
from experiments.step_time.settings import CASES, LARGE, SPARSE, START_CASE, START_GOALS_S

HERE = Path(__file__).parent
RESULT = HERE / "result.json"
PARTS = ("speed", "start", "peers", "threads", "sparse")
THREADS = (1, 2)

Result = dict[str, Any]


def measured(case: str, module: str, *options: str, cache: str | None = None) -> dict[str, Any]:
    """What a module of this folder prints about a case, with the load ahead of it."""
    load = round(os.getloadavg()[0], 2)
    environment = dict(os.environ) if cache is None else {**os.environ, "XDG_CACHE_HOME": cache}
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.step_time.{module}", case, *options],
        cwd=HERE.parents[1],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return {"case": case, "load": load, **json.loads(done.stdout)}


def speed(case: str) -> dict[str, Any]:
    """A case beside PyTorch eager, on one core."""
    return measured(case, "measure", "speed", "--threads", "1")


def starts() -> list[dict[str, Any]]:
    """Cold: an empty cache folder. Warm: the same one, in a fresh process."""
    cores = str(len(os.sched_getaffinity(0)))
    begin = (START_CASE, "measure", "start", "--threads", cores)
    with tempfile.TemporaryDirectory() as cache:
        return [
            {"start": kind, "goal_s": goal, **measured(*begin, cache=cache)}
            for kind, goal in START_GOALS_S.items()
        ]


def beside_peers(result: Result, options: argparse.Namespace) -> None:
    """Every case on every number of threads, beside the peers that have no outcome yet."""
    kept = result.setdefault("peers", {})
    for case in _cases(options, CASES):
        for threads in options.threads:
            key = f"{case}/{threads}"
            old = {} if key not in kept else kept[key]["peers"]
            peers = [name for name in options.peers if options.again or name not in old]
            if not peers:
                continue
            print(f"{key}: {', '.join(peers)}", file=sys.stderr, flush=True)
            row = against(case, threads, peers, Turns(count=options.turns))
            for name in peers:
                row["peers"][name]["ours_ms"] = row["ours"]["ms"]
            kept[key] = {**row, "date": today(), "peers": {**old, **row["peers"]}}
            write(result)


def by_case(result: Result, options: argparse.Namespace, part: str, known: Iterable[str]) -> None:
    """What the module of a part's name measures of every case that has no figures yet."""
    kept = result.setdefault(part, {})
    for case in _cases(options, known):
        if options.again or case not in kept:
            kept[case] = {**measured(case, part, "--runs", str(options.runs)), "date": today()}
            write(result)


def _cases(options: argparse.Namespace, known: Iterable[str]) -> list[str]:
    return [case for case in known if options.case in (None, case)]


def write(result: Result) -> None:
    """The result, and its table."""
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (HERE / "table.md").write_text(table(result), encoding="utf-8")


def today() -> str:
    """The date."""
    return datetime.now(UTC).date().isoformat()


def machine() -> dict[str, Any]:
    """What it ran on, and when."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": today(),
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
        goal.micro_batches,
        "" if goal.recompute is None else f"{goal.recompute:.0%}",
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
    memory = ("PyTorch saves MB", "arena MB", "share", "goal")
    heads = ("case", *times, "parts", "again", *memory, "load")
    first = tabulate(speeds, heads, tablefmt="github")
    begun = [
        (row["start"], row["case"], row["seconds"], row["cpu_seconds"], row["goal_s"], row["load"])
        for row in result["start"]
    ]
    start_heads = ("start", "case", "s to first step", "CPU s", "goal s", "load")
    second = tabulate(begun, start_heads, tablefmt="github")
    where = result["machine"]
    told = f"{where['processor']}, {where['cores']} cores, {where['system']}, {where['date']}."
    parts = [told, first, second]
    if result.get("peers"):
        parts.append(peers_table(_in_order(result["peers"])))
    if result.get("threads"):
        parts.append(threads_table(_in_order(result["threads"])))
    if result.get("sparse"):
        parts.append(sparse_table(_in_order(result["sparse"])))
    return "\n\n".join(parts) + "\n"


def _in_order(rows: Mapping[str, Any]) -> list[Any]:
    """In that of the cases."""
    places = {case: place for place, case in enumerate(CASES)}
    return [
        row for _, row in sorted(rows.items(), key=lambda item: (places[item[1]["case"]], item))
    ]


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, help="only this; keep the others")
    parser.add_argument("--case", choices=sorted(CASES), help="only this; without --part, printed")
    parser.add_argument("--again", action="store_true", help="also what has figures")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--threads", nargs="+", type=int, default=list(THREADS), help="of peers")
    parser.add_argument("--turns", type=int, default=6, help="of three steps, with the peers")
    parser.add_argument("--runs", type=int, default=20, help="of threads and sparse schemes")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # peers end with the run
    if options.case and options.part in (None, "speed", "start"):
        print(table({"machine": machine(), "speed": [speed(options.case)], "start": []}))
        return
    kept = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    result = {"speed": [], "start": [], **kept, "machine": machine()}
    parts = PARTS if options.part is None else (options.part,)
    if "speed" in parts:
        result["speed"] = [speed(case) for case in CASES]
    if "start" in parts:
        result["start"] = starts()
    if "peers" in parts:
        beside_peers(result, options)
    if "threads" in parts:
        by_case(result, options, "threads", LARGE)
    if "sparse" in parts:
        by_case(result, options, "sparse", SPARSE)
    write(result)
    print(table(result))


if __name__ == "__main__":
    main()
