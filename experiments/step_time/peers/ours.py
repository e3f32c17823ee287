"""PockEngine's compiled step; it also tells the step's operations and the core's peak."""

from __future__ import annotations

import torch

import pockengine as pe
from experiments.step_time.peers.protocol import LR, MOMENTUM, Peer, Task, serve
from experiments.step_time.settings import CASES
from pockengine.compile import Prepared, link, prepare
from pockengine.ir.text import parse
from pockengine.modes import Modes
from pockengine.plan.flops import kernel_flops
from pockengine.report.peaks import PeakMeter
from pockengine.trainer import Trainer


def ours(task: Task) -> Peer:
    """The compiled step of a case."""
    torch.set_num_threads(task.threads)
    case = CASES[task.case]
    model = case.model()
    stored = {**task.parameters, **task.buffers}
    model.load_state_dict({n: torch.from_numpy(v) for n, v in stored.items()}, strict=False)
    inputs = tuple(torch.from_numpy(array) for array in task.inputs)
    labels = torch.from_numpy(task.labels)
    prepared = prepare(
        model,
        (inputs, labels),
        loss=case.loss,
        optimizer=pe.SGD(momentum=MOMENTUM),
        modes=Modes(micro_batches=case.micro_batches),
        recompute=case.recompute,
    )
    trainer = Trainer(link(prepared), prepared.captured.tensors, task.threads)
    meter = PeakMeter()

    def peak() -> float:
        meter.sample()
        return meter.peaks.flops_per_s

    return Peer(
        step=lambda: trainer.step(inputs, labels, lr=LR),
        trained=sum(task.parameters[name].size for name in prepared.scheme),
        version="this tree",
        answers={
            "peak": peak,
            "flops": lambda: step_flops(prepared),
            "arena": lambda: prepared.plan.arena_bytes,
        },
    )


def step_flops(prepared: Prepared) -> int:
    """Floating-point operations of the kernels of a step."""
    source = next(source for source in prepared.sources if source.name == "step")
    counts: dict[str, int] = {}
    for kernel in source.kernels:
        if kernel.text not in counts:
            counts[kernel.text] = kernel_flops(parse(kernel.text))
    entry = prepared.plan.entries["step"]
    return entry.rounds * sum(counts[source.kernels[place].text] for place in entry.order)


if __name__ == "__main__":
    serve(ours)
