"""A profile that is killed, and one that Dask runs, give the table of an undisturbed one.

    python -m experiments.contribution.robust          writes robust.json

A small network on the built-in shapes, by the command line. The kills are SIGKILL to the whole
process group at random times; workers die with it. Dask has a
scheduler and two workers on this machine.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from distributed import LocalCluster

HERE = Path(__file__).parent
KILLS = 10
WORKERS_S = 7  # until the first processes have begun a trial
ARGUMENTS = ("small_cnn", "--data", "shapes", "--limit", "60", "--seeds", "2", "--epochs", "80")


def begun(folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """A profile in a process group of its own."""
    command = [sys.executable, "-m", "pockengine.cli", "profile", *ARGUMENTS]
    return subprocess.Popen(
        [*command, "--folder", str(folder), "--json", *more],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )


def table(folder: Path) -> str:
    """The sensitivity that a finished profile wrote."""
    report = json.loads((folder / "report.json").read_text())
    return json.dumps(report["sensitivity"], sort_keys=True)


def finished(folder: Path, *more: str) -> float:
    """Run a profile to its end; seconds."""
    began = time.time()
    code = begun(folder, *more).wait()
    if code:
        raise SystemExit(f"profile failed with {code}")
    return time.time() - began


def killed(folder: Path, start: float, seconds: float) -> list[float]:
    """Kill a profile ten times: after it has begun, and before it can do a fifth of its trials."""
    chance, times = np.random.default_rng(0), []
    for _ in range(KILLS):
        process = begun(folder)
        times.append(round(start + chance.uniform(0, 2 / KILLS) * (seconds - start), 1))
        time.sleep(times[-1])
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return times


def by_dask(folder: Path) -> float:
    """A profile whose trials two workers of Dask run; seconds."""
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        return finished(folder, "--dask", cluster.scheduler_address)


def main() -> None:
    """Compare the tables."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        finished(place / "whole")  # builds the kernels
        start = finished(place / "whole")  # runs nothing
        seconds = finished(place / "again")
        times = killed(place / "killed", start + WORKERS_S, seconds)
        left = finished(place / "killed")
        dask = by_dask(place / "dask")
        whole = table(place / "whole")
        found = {
            "seconds": round(seconds, 1),
            "killed_after_s": times,
            "seconds_after_kills": round(left, 1),
            "same_after_kills": table(place / "killed") == whole,
            "dask_seconds": round(dask, 1),
            "same_by_dask": table(place / "dask") == whole,
        }
    (HERE / "robust.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    if not (found["same_after_kills"] and found["same_by_dask"]):
        sys.exit("the tables differ")


if __name__ == "__main__":
    main()
