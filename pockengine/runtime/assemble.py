"""Plans and kernels become the tables that the C core interprets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch.fx import Graph, Node

from pockengine.ir.graph import Bounds, bounds_of, name_of, outputs_of, placeholders, type_of
from pockengine.ir.types import Region, Role, TensorType
from pockengine.ir.verify import base_of
from pockengine.lower.kernel import Kernel
from pockengine.lower.program import kernel_name
from pockengine.plan.memory import EntryPlan, Place, Plan
from pockengine.runtime.descriptor import Call, Check, Descriptor, Entry, Operand, Port


class Range(Protocol):
    """How a kernel's range may be cut; ``lower.program.Built`` is one."""

    @property
    def extent(self) -> int:
        """Its outer loop runs over [0, extent)."""

    @property
    def grain(self) -> int:
        """The least iterations worth a thread of their own."""


@dataclass(frozen=True, slots=True)
class EntrySource:
    """What an entry point is made of.

    Args:
        name: such as ``step``.
        graph: fused.
        kernels: the graph's kernels, in the fused order.
        inputs: canonical names of its inputs, in the order they are passed.
    """

    name: str
    graph: Graph
    kernels: Sequence[Kernel]
    inputs: tuple[str, ...]


def assemble(
    sources: Sequence[EntrySource], plan: Plan, ranges: Mapping[str, Range]
) -> tuple[Descriptor, tuple[str, ...]]:
    """The descriptor of a trainer.

    Args:
        sources: its entry points.
        plan: of all of them.
        ranges: by kernel text.

    Returns:
        The descriptor, and the texts of its kernels in the order of its kernel table.
    """
    texts = tuple(dict.fromkeys(kernel.text for source in sources for kernel in source.kernels))
    number = {text: index for index, text in enumerate(texts)}
    calls: list[Call] = []
    entries = []
    for source in sources:
        builder = _EntryBuilder(source, plan.places, plan.entries[source.name])
        entries.append(builder.entry(len(calls)))
        for kernel, operands in builder.calls():
            cut = ranges[kernel.text]
            calls.append(Call(number[kernel.text], operands, cut.extent, cut.grain))
    descriptor = Descriptor(
        region_bytes=plan.region_bytes,
        region_alignment=plan.alignment_bytes,
        kernels=tuple(kernel_name(text) for text in texts),
        calls=tuple(calls),
        entries=tuple(entries),
    )
    return descriptor, texts


class _EntryBuilder:
    """Knows where the values of one entry point lie."""

    def __init__(self, source: EntrySource, places: Mapping[str, Place], plan: EntryPlan) -> None:
        self._source = source
        self._places = places
        self._plan = plan

    def calls(self) -> Iterator[tuple[Kernel, tuple[Operand, ...]]]:
        """The kernels in the order they run, with where their operands lie, round by round."""
        for number in range(self._plan.rounds):
            for index in self._plan.order:
                kernel = self._source.kernels[index]
                shifts = [
                    shift + number * stride
                    for shift, stride in zip(kernel.shifts, kernel.strides, strict=True)
                ]
                pairs = zip(kernel.operands, (*shifts, *(0 for _ in kernel.writes)), strict=True)
                yield kernel, tuple(self.operand(node, shift) for node, shift in pairs)

    def operand(self, node: Node, shift: int = 0) -> Operand:
        """Where a stored value lies, or its element number ``shift`` in the order of storage."""
        ahead = shift * type_of(node).dtype.torch.itemsize
        if node in self._plan.offsets:
            return Operand(Region.ARENA, self._plan.offsets[node] + ahead)
        place = self._places[name_of(node)]
        return Operand(place.region, place.offset + ahead)

    def entry(self, first_call: int) -> Entry:
        """The entry point, whose calls begin at ``first_call``."""
        found = outputs_of(self._source.graph)
        loss = None if found.loss is None else self._output("loss", found.loss)
        outputs = [
            self._output(name, node)
            for name, node in zip(_names(len(found.outputs)), found.outputs, strict=True)
        ]
        return Entry(
            self._source.name,
            inputs=self._inputs(),
            outputs=(*(() if loss is None else (loss,)), *outputs),
            first_call=first_call,
            calls=len(self._plan.order) * self._plan.rounds,
            commit=self._plan.commit,
            guard=loss if self._plan.commit >= 0 else None,
            rounds=self._plan.rounds,
        )

    def _inputs(self) -> tuple[Port, ...]:
        roles = (Role.INPUT, Role.TARGET, Role.HYPER)
        nodes = {name_of(node): node for node in placeholders(self._source.graph, *roles)}
        return tuple(self._input(name, nodes[name]) for name in self._source.inputs)

    def _input(self, name: str, node: Node) -> Port:
        kind = type_of(node)
        check = _check(kind, bounds_of(node))
        return Port(name, kind.dtype, self.operand(node), kind.size, check)

    def _output(self, name: str, node: Node) -> Port:
        kind = type_of(node)
        return Port(name, kind.dtype, self.operand(base_of(node)), kind.size)


def _check(kind: TensorType, bounds: Bounds | None) -> Check:
    """What an input has to satisfy before anything is changed."""
    if bounds is not None:
        return Check.index(bounds.low, bounds.high, bounds.ignore)
    return Check.finite() if kind.dtype.is_float else Check()


def _names(count: int) -> list[str]:
    """Names of a model's outputs."""
    return ["output"] if count == 1 else [f"output.{place}" for place in range(count)]
