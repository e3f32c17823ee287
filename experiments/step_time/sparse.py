"""A sparse step beside the full one, in turns, kernel by kernel; and the memory of both.

    python -m experiments.step_time.sparse mobilenet_v2-b8 --runs 20

A kernel of the sparse step has a twin in the full one: of the same text; else of the same main op,
shape and owner; else of the same main op and shape. What the twins take in the full step is what
the sparse one may take; a kernel without a twin counts with its own time.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import defaultdict
from collections.abc import Callable, Hashable
from time import perf_counter
from typing import Any

import numpy as np
import torch

import pockengine as pe
from experiments.beside import saved_bytes
from experiments.step_time.measure import MOMENTUM
from experiments.step_time.settings import CASES, SPARSE, Case
from pockengine.compile import link, prepare
from pockengine.ir.graph import op_name, type_of
from pockengine.ir.text import parse
from pockengine.modes import Modes
from pockengine.plan.flops import kernel_flops
from pockengine.report.kernel_kind import main_op
from pockengine.report.owners import kernel_owners
from pockengine.scheme import Scheme
from pockengine.trainer import Trainer

Keys = tuple[Hashable, ...]


class Step:
    """A compiled step whose kernels can be timed.

    Args:
        case: the workload.
        scheme: what is updated; None for everything.
        micro_batches: parts of a batch.
    """

    def __init__(self, case: Case, scheme: Scheme | None, micro_batches: int) -> None:
        torch.manual_seed(0)
        model, (inputs, labels) = case.model(), case.batch()
        optimizer = pe.SGD(momentum=MOMENTUM)
        prepared = prepare(
            model,
            (inputs, labels),
            loss=case.loss,
            optimizer=optimizer,
            scheme=scheme,
            modes=Modes(micro_batches=micro_batches),
        )
        source = next(source for source in prepared.sources if source.name == "step")
        entry = prepared.plan.entries["step"]
        kernels = [source.kernels[i] for i in entry.order] * entry.rounds
        graphs = {kernel.text: parse(kernel.text) for kernel in kernels}
        work = {text: kernel_flops(graph) for text, graph in graphs.items()}
        self.flops = sum(work[kernel.text] for kernel in kernels)
        owners, _ = kernel_owners(kernels)
        ops = [main_op(graphs[kernel.text]) for kernel in kernels]
        kinds = [(op_name(op), type_of(op).shape) for op in ops]
        self.keys: list[Keys] = [
            (kernel.text, (owner, kind), kind)
            for kernel, owner, kind in zip(kernels, owners, kinds, strict=True)
        ]
        self.arena_bytes = prepared.plan.arena_bytes
        self._trainer = Trainer(link(prepared), prepared.captured.tensors, 1)
        signature = self._trainer.program.signature
        rate = np.zeros(1, np.float32)  # every run does the same
        self._arrays = [*signature.bind_inputs(inputs), *signature.bind_targets(labels), rate]
        self._kernels: list[Any] = []
        self._whole: list[float] = []

    def run(self) -> None:
        """Once to fill the caches, once kernel by kernel, once as a whole."""
        engine = self._trainer.engine
        engine.run("step", self._arrays)
        self._kernels.append(engine.run_timed("step", self._arrays)[1])
        begun = perf_counter()
        engine.run("step", self._arrays)
        self._whole.append((perf_counter() - begun) * 1e3)

    @property
    def kernel_ms(self) -> list[float]:
        """Medians, in the order of the step."""
        found: list[float] = np.median(np.stack(self._kernels), axis=0).tolist()
        return found

    @property
    def ms(self) -> float:
        """Median of the whole step."""
        return float(np.median(self._whole))


def twins(keys: list[Keys], others: list[Keys]) -> list[int | None]:
    """The place of each one's twin among the others, by the first key that fits; each once."""
    found: list[int | None] = [None] * len(keys)
    taken: set[int] = set()
    for level in range(3):
        by_key: defaultdict[Hashable, list[int]] = defaultdict(list)
        for place, key in enumerate(others):
            if place not in taken:
                by_key[key[level]].append(place)
        places = {key: iter(listed) for key, listed in by_key.items()}
        for number, key in enumerate(keys):
            if found[number] is None:
                twin = next(places.get(key[level], iter(())), None)
                found[number] = twin
                taken |= set() if twin is None else {twin}
    return found


def measured(name: str, runs: int) -> dict[str, object]:
    """Times in milliseconds, operations and bytes of a case's sparse step and its full one."""
    case = CASES[name]
    scheme = SPARSE[name].scheme(case.model())
    parts = SPARSE[name].micro_batches
    full, sparse = Step(case, None, parts), Step(case, scheme, parts)
    for _ in range(runs):
        full.run()
        sparse.run()
    theirs, own = full.kernel_ms, sparse.kernel_ms
    matches = twins(sparse.keys, full.keys)
    remaining = [ms if at is None else theirs[at] for ms, at in zip(own, matches, strict=True)]
    alone = [ms for ms, at in zip(own, matches, strict=True) if at is None]
    return {
        "full_ms": full.ms,
        "sparse_ms": sparse.ms,
        "remaining_ms": sum(remaining),
        "kernels_ms": sum(own),
        "without_twin_ms": sum(alone),
        "full_flops": full.flops,
        "sparse_flops": sparse.flops,
        "full_arena_bytes": full.arena_bytes,
        "sparse_arena_bytes": sparse.arena_bytes,
        "torch_full_bytes": _saved(case, lambda _: True),
        "torch_sparse_bytes": _saved(case, lambda parameter: parameter in scheme),
    }


def _saved(case: Case, trained: Callable[[str], bool]) -> int:
    """What PyTorch saves for the backward pass."""
    torch.manual_seed(0)
    model, (inputs, labels) = case.model(), case.batch()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained(name))
    return saved_bytes(model, lambda: case.loss(model(*inputs), labels))


def main() -> None:
    """Measure what the command line names, on one core."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=sorted(SPARSE))
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-1:])
    print(json.dumps(measured(options.case, options.runs)))


if __name__ == "__main__":
    main()
