"""A million steps of a small trainer: memory, open files and threads along the way.

Run from the repository: ``python -m experiments.long_run.run [steps]``; writes ``result.json``.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pockengine as pe

HERE = Path(__file__).parent
SAMPLES = 21  # along the run
BATCH, BATCHES = 8, 5000


def usage() -> dict[str, int]:
    """Resident bytes, open file handles and threads of this process, by Linux's /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "resident_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "handles": len(list(Path("/proc/self/fd").iterdir())),
        "threads": len(list(Path("/proc/self/task").iterdir())),
        "python_threads": threading.active_count(),
        "python_objects": len(gc.get_objects()),
    }


def trainer() -> pe.Trainer:
    """A small net with dropout."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    example = (torch.zeros(BATCH, 8), torch.zeros(BATCH, dtype=torch.int64))
    return pe.compile(model, example, loss="cross_entropy", optimizer=pe.AdamW(), threads=1)


def run(steps: int) -> dict[str, Any]:
    """Fit over and over; a sample of the usage at even distances, the first after a warm-up."""
    x = torch.randn(BATCH * BATCHES, 8)
    y = x[:, :3].argmax(1)
    part = (x[: 4 * BATCH], y[: 4 * BATCH])
    epochs = steps // BATCHES
    every = epochs // (SAMPLES - 1)
    samples: list[dict[str, Any]] = []

    class Sampler(pe.Callback):
        def on_epoch(self, status: Any) -> None:
            if status.epoch % every == 0 or status.epoch == 1:
                gc.collect()
                told = {"step": status.step, "loss": status.row["loss"], **usage()}
                samples.append(told)
                print(told, flush=True)

    with trainer() as made:
        made.fit((x, y), epochs=2, progress=False)  # warm-up: lazy imports, threads
        began, cpu = time.perf_counter(), time.process_time()
        made.fit((x, y), validation=part, epochs=epochs, callbacks=[Sampler()], progress=False)
        seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    half = samples[len(samples) // 2]
    last = samples[-1]
    return {
        "steps": epochs * BATCHES,
        "seconds": round(seconds, 1),
        "cpu_s": round(cpu_s, 1),
        "grown_in_the_second_half": {name: last[name] - half[name] for name in usage()},
        "samples": samples,
    }


if __name__ == "__main__":
    found = run(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    (HERE / "result.json").write_text(json.dumps(found, indent=1) + "\n")
    print(found["grown_in_the_second_half"], found["seconds"], "s")
