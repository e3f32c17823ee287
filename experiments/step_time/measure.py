"""Measure one case in this process, and print it as JSON.

    python -m experiments.step_time.measure mobilenet_v2-b1 speed --threads 1
    python -m experiments.step_time.measure mobilenet_v2-b8 start --threads 2

Speed: steps of PyTorch and of the compiled trainer in turns. Start: module to first step, once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from experiments.beside import in_turns, saved_bytes
from experiments.step_time.settings import CASES, Batch, Case

if TYPE_CHECKING:
    from pockengine import Trainer

LR = 1e-3
MOMENTUM = 0.9


def speed(case: Case, threads: int) -> dict[str, object]:
    """Medians in milliseconds, and transient bytes of either side."""
    torch.manual_seed(0)
    model, (inputs, labels) = case.model(), case.batch()
    trainer = compiled(model, (inputs, labels), case, threads)
    saved = saved_bytes(model, lambda: case.loss(model(*inputs), labels))
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def eager() -> float:
        loss = case.loss(model(*inputs), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    times = in_turns(eager, lambda: trainer.step(inputs, labels, lr=LR))
    plan = trainer.plan
    return {
        **times,
        "torch_saved_bytes": saved,
        "arena_bytes": plan.arena_bytes,
        "lower_bound_bytes": plan.lower_bound_bytes,
        "param_bytes": plan.param_bytes,
        "state_bytes": plan.state_bytes,
        "const_bytes": plan.const_bytes,
    }


def compiled(model: nn.Module, batch: Batch, case: Case, threads: int) -> Trainer:
    """The trainer of a case."""
    import pockengine as pe  # noqa: PLC0415 - `start` counts the import

    return pe.compile(
        model,
        batch,
        loss=case.loss,
        optimizer=pe.SGD(momentum=MOMENTUM),
        micro_batches=case.micro_batches,
        recompute=case.recompute,
        threads=threads,
    )


def start(case: Case, threads: int) -> dict[str, object]:
    """Seconds from the module to the end of the first step, imports of the compiler included."""
    torch.manual_seed(0)
    model, (inputs, labels) = case.model(), case.batch()
    begun, before = time.perf_counter(), os.times()
    trainer = compiled(model, (inputs, labels), case, threads)
    trainer.step(inputs, labels, lr=LR)
    used = os.times()
    return {
        "seconds": round(time.perf_counter() - begun, 2),
        "cpu_seconds": round(sum(used[:4]) - sum(before[:4]), 2),
        "imports_tvm": "tvm" in sys.modules,
    }


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("what", choices=("speed", "start"))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cores = sorted(os.sched_getaffinity(0))
    measure = start if options.what == "start" else speed
    if options.what == "speed" and options.threads == 1:
        os.sched_setaffinity(0, cores[-1:])
    print(json.dumps(measure(CASES[options.case], options.threads)))


if __name__ == "__main__":
    main()
