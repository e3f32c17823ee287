"""A step on one thread and on several, in turns, beside what the cores reach together.

    python -m experiments.step_time.threads mini_lm-b8 --threads 2

Cores of shared machines may be siblings of each other, or lent to others: several reach less than
their number. So the gain is held against that of a loop of multiply-adds in the same run.
"""

from __future__ import annotations

import argparse
import json
from statistics import median
from time import perf_counter

import numpy as np
import torch

import pockengine as pe
from experiments.step_time.measure import MOMENTUM
from experiments.step_time.settings import CASES
from pockengine.compile import link, prepare
from pockengine.modes import Modes
from pockengine.report.peaks import PeakMeter
from pockengine.trainer import Trainer


def measured(name: str, threads: int, runs: int) -> dict[str, float]:
    """Milliseconds of a step and multiply-adds a second, on one thread and on several.

    Args:
        name: of the case.
        threads: of the second trainer.
        runs: turns; the first does not count.
    """
    torch.manual_seed(0)
    case = CASES[name]
    model, (inputs, labels) = case.model(), case.batch()
    optimizer = pe.SGD(momentum=MOMENTUM)
    prepared = prepare(
        model,
        (inputs, labels),
        loss=case.loss,
        optimizer=optimizer,
        modes=Modes(micro_batches=case.micro_batches),
        recompute=case.recompute,
    )
    program = link(prepared)
    counts = (1, threads)
    trainers = [Trainer(program, prepared.captured.tensors, count) for count in counts]
    meters = [PeakMeter(count) for count in counts]
    signature = program.signature
    rate = np.zeros(1, np.float32)  # every run does the same
    arrays = [*signature.bind_inputs(inputs), *signature.bind_targets(labels), rate]
    taken: list[list[float]] = [[] for _ in counts]
    for _ in range(runs + 1):
        for trainer, meter, times in zip(trainers, meters, taken, strict=True):
            meter.sample()
            trainer.engine.run("step", arrays)
            began = perf_counter()
            trainer.engine.run("step", arrays)
            times.append((perf_counter() - began) * 1e3)
    one, several = (median(times[1:]) for times in taken)
    alone, together = (meter.peaks.flops_per_s for meter in meters)
    return {
        "threads": threads,
        "one_ms": round(one, 3),
        "several_ms": round(several, 3),
        "one_flops_per_s": alone,
        "several_flops_per_s": together,
    }


def main() -> None:
    """Print what was measured as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    print(json.dumps(measured(options.case, options.threads, options.runs)))


if __name__ == "__main__":
    main()
