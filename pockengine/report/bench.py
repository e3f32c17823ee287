"""The instrument: every kernel of a step timed in place, against the machine's own peaks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.fx import Graph

from pockengine.compile import link, prepare
from pockengine.errors import InputError
from pockengine.ir.graph import type_of
from pockengine.ir.text import parse
from pockengine.lower.features import host_target
from pockengine.lower.kernel import Kernel
from pockengine.lower.tuning import Tuning
from pockengine.plan.costs import kernel_ns
from pockengine.plan.flops import kernel_bytes, kernel_flops
from pockengine.report.eager import eager_step
from pockengine.report.kernel_kind import kernel_kind, main_op
from pockengine.report.owners import kernel_owners
from pockengine.report.peaks import PeakMeter, Peaks
from pockengine.report.timing import Agreement, Timing, agreement, together
from pockengine.report.workloads import Workload
from pockengine.scheme import Rule, Scheme
from pockengine.trainer import Trainer

_LEARNING_RATE = 0.0  # every run does the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What a bench found.

    Args:
        threads: how many worked.
        runs: how many steps were timed.
        peaks: of so many threads, measured between the steps.
        kernels: in the order of the step.
        step_ms: median of whole steps, from Python, without the timing of kernels.
        eager_ms: median of PyTorch's step, in turns with ours; None where it was not asked for.
        region_bytes: const, param, state and arena.
    """

    threads: int
    runs: int
    peaks: Peaks
    kernels: tuple[Timing, ...]
    step_ms: float
    eager_ms: float | None
    region_bytes: tuple[int, int, int, int]

    @property
    def kinds(self) -> list[Timing]:
        """The kernels by kind, the most time first."""
        by_kind: dict[str, list[Timing]] = {}
        for timing in self.kernels:
            by_kind.setdefault(timing.kind, []).append(timing)
        found = [together(kind, timings) for kind, timings in by_kind.items()]
        return sorted(found, key=lambda timing: -timing.ms)

    @property
    def agreement(self) -> Agreement:
        """How the predicted times of the kernels compare with the measured ones."""
        return agreement(self.kernels)

    @property
    def total(self) -> Timing:
        """All kernels together."""
        return together("all kernels", self.kernels)

    def as_dict(self) -> dict[str, Any]:
        """All of it, fit for JSON."""
        regions = zip(("const", "param", "state", "arena"), self.region_bytes, strict=True)
        return {
            "threads": self.threads,
            "runs": self.runs,
            "peaks": asdict(self.peaks),
            "kernels": [timing.as_dict() for timing in self.kernels],
            "kinds": [timing.as_dict() for timing in self.kinds],
            "total": self.total.as_dict(),
            "prediction": asdict(self.agreement),
            "step_ms": self.step_ms,
            "eager_ms": self.eager_ms,
            "region_bytes": dict(regions),
        }


def bench(
    workload: Workload,
    *,
    scheme: Scheme | Rule | None = None,
    threads: int = 1,
    runs: int = 20,
    eager: bool = False,
    tuning: str | Path | None = None,
) -> Bench:
    """Compile a workload's step and time it on this machine.

    Args:
        workload: what to fine-tune.
        scheme: what to update; by default what the model's ``requires_grad`` says.
        threads: how many work; one is pinned to its core.
        runs: steps to time; each figure is the median.
        eager: whether to time PyTorch's step as well, in turns and with as many threads.
        tuning: as ``compile``.

    Raises:
        InputError: no runs are asked for.
        PockEngineError: as ``compile``.
    """
    if runs < 1:
        raise _no_runs(runs)
    tuned = None if tuning is None else Tuning.load(tuning, host_target())
    prepared = prepare(
        workload.model,
        workload.batch,
        loss=workload.loss,
        optimizer=workload.optimizer,
        scheme=scheme,
    )
    source = next(source for source in prepared.sources if source.name == "step")
    entry = prepared.plan.entries["step"]
    ordered = [source.kernels[i] for i in entry.order] * entry.rounds
    program = link(prepared, tuning=tuned)
    other = eager_step(workload, prepared.scheme, threads) if eager else None
    with pinned(threads), Trainer(program, prepared.captured.tensors, threads) as trainer:
        meter = PeakMeter(threads)
        times, step_ms, eager_ms = _measure(trainer, workload, other, runs, meter)
    return Bench(
        threads=threads,
        runs=runs,
        peaks=meter.peaks,
        kernels=tuple(_timings(ordered, times, meter.peaks)),
        step_ms=step_ms,
        eager_ms=eager_ms,
        region_bytes=prepared.plan.region_bytes,
    )


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keep this thread on one core, if one is all that works and the system can."""
    if threads > 1 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def _measure(
    trainer: Trainer,
    workload: Workload,
    eager: Callable[[], None] | None,
    runs: int,
    meter: PeakMeter,
) -> tuple[NDArray[np.float64], float, float | None]:
    """Medians: milliseconds of each kernel call, of our step, and of PyTorch's; all in turns."""
    inputs, targets = workload.batch
    signature = trainer.program.signature
    rate = np.array([_LEARNING_RATE], np.float32)
    arrays = [*signature.bind_inputs(inputs), *signature.bind_targets(targets), rate]
    in_place, whole, others = [], [], []
    for _ in range(runs):
        meter.sample()
        trainer.engine.run("step", arrays)  # what came before has the caches
        in_place.append(trainer.engine.run_timed("step", arrays)[1])
        whole.append(_ms(lambda: trainer.engine.run("step", arrays)))
        if eager is not None:
            eager()
            others.append(_ms(eager))
    median = float(np.median(others)) if others else None
    return np.median(np.stack(in_place), axis=0), float(np.median(whole)), median


def _ms(run: Callable[[], object]) -> float:
    start = perf_counter()
    run()
    return (perf_counter() - start) * 1e3


def _timings(
    kernels: Sequence[Kernel], times: NDArray[np.float64], peaks: Peaks
) -> Iterator[Timing]:
    """The kernels in the order of the step, each with its work."""
    graphs: dict[str, Graph] = {}
    owners, _ = kernel_owners(kernels)
    for number, (kernel, ms) in enumerate(zip(kernels, times.tolist(), strict=True)):
        if kernel.text not in graphs:
            graphs[kernel.text] = parse(kernel.text)
        graph = graphs[kernel.text]
        flops, nbytes = kernel_flops(graph), kernel_bytes(graph)
        limit, peak_s = peaks.limit(flops, nbytes)
        yield Timing(
            name=f"{number} {owners[number]} {type_of(main_op(graph))}".replace("  ", " "),
            kind=kernel_kind(graph),
            calls=1,
            ms=ms,
            flops=flops,
            nbytes=nbytes,
            limit=limit,
            peak_ms=peak_s * 1e3,
            predicted_ms=kernel_ns(graph, peaks.flops_per_s, peaks.bytes_per_s(nbytes)) / 1e6,
        )


def _no_runs(runs: int) -> InputError:
    return InputError(
        where="bench",
        found=f"{runs} runs",
        needed="at least one",
        remedy="Leave --runs out for twenty",
    )
