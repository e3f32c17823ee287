"""The graph of an entry point as each pass left it, and the kernels that it became."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch.fx import Graph

from pockengine.compile import Prepared, prepare
from pockengine.errors import InputError
from pockengine.ir.text import text
from pockengine.lower.kernel import Kernel
from pockengine.passes.fold_constants import folded_from
from pockengine.pipeline import GRADIENTS, SYMBOLIC
from pockengine.report.owners import kernel_owners
from pockengine.report.workloads import Workload
from pockengine.scheme import Rule, Scheme
from pockengine.targets import Target
from pockengine.targets.host import TARGET as HOST

LAST_SYMBOLIC = SYMBOLIC[-1][0]
"""The pass whose graph constants are folded of."""
LAST_OF_GRADIENTS = GRADIENTS[-1][0]
"""The pass after which a step has the scheme's gradients alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a pass did to the graph of an entry point, as IR text."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """A prepared trainer, and how it came about.

    Args:
        prepared: the trainer ahead of code generation.
        workload: what it was prepared from.
        pruned: the graph of a step that computes the scheme's gradients and no others.
        folded: the tensor of the model that each constant computed ahead of time stems from.
        stages: by entry point, the passes in their order.
    """

    prepared: Prepared
    workload: Workload
    pruned: Graph
    folded: dict[str, str] = field(default_factory=dict)
    stages: dict[str, list[Stage]] = field(default_factory=dict)

    def stage(self, entry: str, name: str) -> Stage:
        """What one pass did; InputError if there is no such pass of that entry point."""
        found = {stage.name: stage for stage in self.stages[entry]}
        if name not in found:
            raise InputError(
                where=f"--pass of {entry}",
                found=f"there is no pass {name!r}",
                needed=f"one of {', '.join(found)}",
                remedy="Leave it out to see all",
            )
        return found[name]

    def kernels(self, entry: str) -> Iterator[str]:
        """The kernels of an entry point in the order they run, as IR text under a heading."""
        for step, kernel in enumerate(self.ordered(entry)):
            reads = ", ".join(node.name for node in kernel.reads)
            writes = ", ".join(node.name for node in (*kernel.writes, *kernel.updates))
            yield f"# kernel {step}: {reads} -> {writes}\n{kernel.text}"

    def owners(self, entry: str) -> dict[str, str]:
        """The tensor of the model that each value of an entry point belongs to, by value."""
        return kernel_owners(self.ordered(entry), self.folded)[1]

    def ordered(self, entry: str) -> list[Kernel]:
        """The kernel calls of an entry point in the order they run."""
        source = next(each for each in self.prepared.sources if each.name == entry)
        return [source.kernels[i] for i in self.prepared.plan.entries[entry].order]


def inspect_graph(
    workload: Workload, *, scheme: Scheme | Rule | None = None, target: Target = HOST
) -> Inspection:
    """Prepare a workload's trainer and note every graph on the way.

    Args:
        workload: what to fine-tune.
        scheme: what to update; by default what the model's ``requires_grad`` says.
        target: the machine.

    Raises:
        PockEngineError: as ``compile``.
    """
    seen: dict[str, list[tuple[str, str]]] = {}
    folded: dict[str, str] = {}
    pruned: list[Graph] = []

    def observe(entry: str, name: str, graph: Graph) -> None:
        seen.setdefault(entry, []).append((name, text(graph)))
        if name == LAST_SYMBOLIC:
            folded.update(folded_from(graph))
        if (entry, name) == ("step", LAST_OF_GRADIENTS):
            pruned.append(graph)

    prepared = prepare(
        workload.model,
        workload.batch,
        loss=workload.loss,
        optimizer=workload.optimizer,
        scheme=scheme,
        target=target,
        observe=observe,
    )
    first = text(prepared.captured.graph)
    stages = {entry: _stages(first, found) for entry, found in seen.items()}
    return Inspection(prepared, workload, pruned[0], folded, stages)


def _stages(first: str, found: list[tuple[str, str]]) -> list[Stage]:
    """Each pass with the graph that it was given; the first got the captured one."""
    befores = [first, *(after for _, after in found[:-1])]
    return [
        Stage(name=name, before=before, after=after)
        for before, (name, after) in zip(befores, found, strict=True)
    ]
