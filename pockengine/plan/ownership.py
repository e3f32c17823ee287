"""A second look at a plan: run it on names instead of numbers, and see that nothing is lost.

It uses no lifetimes and shares no code with the planner: it follows who wrote which bytes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Node

from pockengine.errors import PlanError
from pockengine.ir.graph import type_of


@dataclass(frozen=True, slots=True)
class Work:
    """One kernel call as the planner sees it.

    Args:
        reads: the stored values that it reads: placeholders or what other kernels write.
        writes: the transient values that it makes.
        updates: the parameters and state that it overwrites.
        in_place: pairs (read, write) of which the second may take the bytes of the first: the
            kernel reads each element of the one right before it writes that of the other.
    """

    reads: tuple[Node, ...]
    writes: tuple[Node, ...]
    updates: tuple[Node, ...]
    in_place: tuple[tuple[Node, Node], ...] = ()


def check_ownership(
    works: Iterable[Work],
    inputs: Iterable[Node],
    yielded: Sequence[Node],
    offsets: Mapping[Node, int],
) -> None:
    """Refuse a plan in which a kernel would read bytes that another value has taken.

    Args:
        works: the kernels in the order they run.
        inputs: what is in the arena before the first runs.
        yielded: what has to be there after the last.
        offsets: byte offset in the arena by transient value.

    Raises:
        PlanError: a value is gone, or not yet there, when it is read; or two operands of one kernel
            overlap, but for the pairs that may; or a parameter is read after its update.
    """
    memory = _Memory(offsets)
    for node in inputs:
        memory.write(node, ())
    updated: set[Node] = set()
    for work in works:
        for node in work.reads:
            if node in offsets:
                memory.read(node)
            elif node in updated:
                raise _wrong(node, "it is read after its update")
        _check_apart(work, offsets)
        for node in work.writes:
            memory.write(node, work.writes)
        updated |= set(work.updates)
    for node in yielded:
        memory.read(node)


def check_joined(joined: Mapping[Node, Sequence[Node]], offsets: Mapping[Node, int]) -> None:
    """Refuse a plan in which a value that is joined in place is not where its parts are.

    Args:
        joined: the parts of each, in their order.
        offsets: byte offset in the arena by transient value.

    Raises:
        PlanError: a part does not begin where the last one ends, or they do not fill the whole.
    """
    for node, parts in joined.items():
        end = offsets[node]
        for part in parts:
            if offsets[part] != end:
                raise _wrong(part, f"it is not where {node.name}, of which it is a part, has it")
            end += type_of(part).nbytes
        if end - offsets[node] != type_of(node).nbytes:
            raise _wrong(node, f"its parts are {end - offsets[node]} bytes")


class _Memory:
    """Who owns which bytes."""

    def __init__(self, offsets: Mapping[Node, int]) -> None:
        self._offsets = offsets
        self._owners: dict[Node, tuple[int, int]] = {}

    def write(self, node: Node, beside: Sequence[Node]) -> None:
        """The bytes of a value become its own, at the cost of those that had them."""
        start = self._offsets[node]
        end = start + type_of(node).nbytes
        for other, (low, high) in list(self._owners.items()):
            if other is not node and low < end and start < high:
                if other in beside:
                    raise _wrong(node, f"it overlaps {other.name}, which the same kernel writes")
                del self._owners[other]
        self._owners[node] = (start, end)

    def read(self, node: Node) -> None:
        """Make sure that a value still owns its bytes."""
        if node not in self._owners:
            raise _wrong(node, "its bytes are not its own when it is read")


def _check_apart(work: Work, offsets: Mapping[Node, int]) -> None:
    """What a kernel writes meets nothing that it reads, but in place."""
    for write in work.writes:
        start, end = offsets[write], offsets[write] + type_of(write).nbytes
        for read in work.reads:
            if read not in offsets or read is write:
                continue
            low, high = offsets[read], offsets[read] + type_of(read).nbytes
            if low < end and start < high and not ((read, write) in work.in_place and low == start):
                raise _wrong(write, f"it overlaps {read.name}, which the same kernel reads")


def _wrong(node: Node, found: str) -> PlanError:
    return PlanError(
        where=f"memory plan, value {node.name} of {type_of(node).nbytes} bytes",
        found=found,
        needed="every value keeps its bytes until its last reader has run",
        remedy="The plan is wrong: do not use it, and report it.",
    )
