"""Where every value of a trainer lies: the four regions, and the offsets in the arena.

``const``, ``param`` and ``state`` are packed in sequence, once for all entry points. Each entry
point orders its kernels, lets results take the bytes of operands that die with them, and packs what
is left; the entry points share one arena, as large as the largest needs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch.fx import Graph, Node

from pockengine.errors import PlanError
from pockengine.ir.graph import (
    calls,
    name_of,
    outputs_of,
    placeholders,
    role_of,
    rounds_of,
    scope_of,
    type_of,
)
from pockengine.ir.joined import parts_of, stored_parts
from pockengine.ir.types import Region, Role, TensorType
from pockengine.ir.verify import base_of
from pockengine.passes.choose_saved import saved_values
from pockengine.plan.check import check
from pockengine.plan.model import Buffer
from pockengine.plan.order import Task, lifetimes, order
from pockengine.plan.ownership import Work, check_joined, check_ownership
from pockengine.plan.pack import pack

ALIGNMENT = 64
"""Of every value on a host, in bytes: a cache line, and the widest vector."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parameter, constant or state lies: a byte offset in a region, in what order."""

    region: Region
    offset: int
    type: TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A transient value: ``nbytes`` at ``offset`` of the arena during the steps [lower, upper).

    Args:
        name: of its node in the fused graph.
        scope: the module that it comes from; empty where that is not known.
        nbytes: without padding.
        lower: the step of the kernel that writes it; 0 for an input.
        upper: the first step that may overwrite it.
        offset: in bytes.
    """

    name: str
    scope: str
    nbytes: int
    lower: int
    upper: int
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPlan:
    """The plan of one entry point.

    Args:
        order: its kernels in the order they run, as indices into the fused order.
        commit: the first step that updates a parameter or state; -1 if none does.
        rounds: how often its kernels run, once for each micro-batch.
        values: its transient values, in the order they are made.
        offsets: byte offset in the arena by node of the fused graph; what is joined in place has
            one besides its parts'.
        arena_bytes: what it needs of the arena.
        lower_bound_bytes: the bytes live at its worst moment; no packing can need fewer.
        saved_bytes: of forward values that are kept for the backward pass.
    """

    order: tuple[int, ...]
    commit: int
    rounds: int = 1
    values: tuple[Value, ...]
    offsets: Mapping[Node, int]
    arena_bytes: int
    lower_bound_bytes: int
    saved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Bytes by region of a trainer, where its values lie, and the plan of each entry point.

    All offsets are multiples of ``alignment_bytes``, if the regions' first bytes are.
    """

    alignment_bytes: int
    arena_bytes: int
    lower_bound_bytes: int
    const_bytes: int
    param_bytes: int
    state_bytes: int
    saved_bytes: int
    places: Mapping[str, Place]
    entries: Mapping[str, EntryPlan]

    @property
    def region_bytes(self) -> tuple[int, int, int, int]:
        """Sizes of const, param, state and arena."""
        return self.const_bytes, self.param_bytes, self.state_bytes, self.arena_bytes


def plan_memory(
    graphs: Mapping[str, Graph], entries: Mapping[str, EntryPlan], alignment_bytes: int = ALIGNMENT
) -> Plan:
    """Place every value of a trainer.

    Args:
        graphs: fused graphs by entry point, over the same parameters, constants and state.
        entries: the plan of each (``plan_entry``), of the same alignment.
        alignment_bytes: of every value, a power of two.

    Raises:
        PlanError: the graphs disagree on how a value is stored.
    """
    places, sizes = _places(graphs.values(), alignment_bytes)
    return Plan(
        alignment_bytes=alignment_bytes,
        arena_bytes=max((entry.arena_bytes for entry in entries.values()), default=0),
        lower_bound_bytes=max((entry.lower_bound_bytes for entry in entries.values()), default=0),
        const_bytes=sizes[Region.CONST],
        param_bytes=sizes[Region.PARAM],
        state_bytes=sizes[Region.STATE],
        saved_bytes=max((entry.saved_bytes for entry in entries.values()), default=0),
        places=places,
        entries=entries,
    )


def _places(
    graphs: Iterable[Graph], alignment_bytes: int
) -> tuple[dict[str, Place], dict[Region, int]]:
    """Everything that persists, in sequence in its region."""
    places: dict[str, Place] = {}
    sizes = dict.fromkeys((Region.CONST, Region.PARAM, Region.STATE), 0)
    for graph in graphs:
        for node in placeholders(graph, Role.CONST, Role.PARAM, Role.STATE):
            role = role_of(node)
            assert role is not None
            name, kind, region = name_of(node), type_of(node), role.region
            made = Place(region, sizes[region], kind)
            if places.setdefault(name, made) is made:
                sizes[region] += _aligned(kind.nbytes, alignment_bytes)
            elif (places[name].region, places[name].type) != (region, kind):
                raise _disagreement(name, places[name], made)
    return places, sizes


def _aligned(nbytes: int, alignment_bytes: int) -> int:
    return -(-nbytes // alignment_bytes) * alignment_bytes


def _disagreement(name: str, one: Place, other: Place) -> PlanError:
    return PlanError(
        where=f"memory plan, {name}",
        found=f"{one.region.name.lower()} {one.type} in one entry point, "
        f"{other.region.name.lower()} {other.type} in another",
        needed="one way to store a value",
        remedy="This is a fault of the compiler: please report it.",
    )


def plan_entry(graph: Graph, works: Sequence[Work], alignment_bytes: int = ALIGNMENT) -> EntryPlan:
    """Order the kernels of one entry point and place its transient values.

    Args:
        graph: fused; its loss and outputs are dense (``copy_outputs``).
        works: its kernels, in the fused order.
        alignment_bytes: of every value, a power of two.

    Raises:
        PlanError: updates and the loss wait for each other, or the plan failed its check.
    """
    problem = _Problem(graph, works)
    ordered = [problem.sequence[i] for i in problem.order]
    buffers = problem.buffers(alignment_bytes)
    packing = pack(buffers, alignment=alignment_bytes)
    check(buffers, packing.offsets, packing.peak)
    offsets = problem.offsets(packing.offsets)
    check_joined(problem.joined, offsets)
    kept = (*problem.yielded, *problem.lasting)
    check_ownership([works[i] for i in ordered], problem.inputs, kept, offsets)
    commits = [step for step, index in enumerate(ordered) if works[index].updates]
    return EntryPlan(
        order=tuple(ordered),
        commit=commits[0] if commits else -1,
        rounds=rounds_of(graph),
        values=tuple(problem.told(node, offsets[node]) for node in problem.values),
        offsets=offsets,
        arena_bytes=_aligned(packing.peak, alignment_bytes),
        lower_bound_bytes=packing.lower_bound,
        saved_bytes=sum(type_of(node).nbytes for node in saved_values(graph)),
    )


class _Problem:
    """The kernels of an entry point as tasks, and its transient values as numbered buffers."""

    def __init__(self, graph: Graph, works: Sequence[Work]) -> None:
        self.inputs = tuple(placeholders(graph, Role.INPUT, Role.TARGET, Role.HYPER))
        self.lasting = self.inputs if rounds_of(graph) > 1 else ()  # further rounds read them
        self.values = [*self.inputs, *(node for work in works for node in work.writes)]
        found = outputs_of(graph)
        head = () if found.loss is None else (found.loss,)
        bases = dict.fromkeys(base_of(node) for node in (*head, *found.outputs))
        self.yielded = tuple(part for base in bases for part in stored_parts(base))
        number = {node: index for index, node in enumerate(self.values)}
        self._sizes = [type_of(node).nbytes for node in self.values]
        after = _dependencies(works, base_of(found.loss) if found.loss is not None else None)
        self.sequence = _sorted(after)
        rank = {index: place for place, index in enumerate(self.sequence)}
        self._tasks = [
            Task(
                reads=tuple(number[node] for node in works[index].reads if node in number),
                writes=tuple(number[node] for node in works[index].writes),
                after=tuple(sorted(rank[other] for other in after[index])),
            )
            for index in self.sequence
        ]
        outputs = frozenset(number[node] for node in (*self.yielded, *self.lasting))
        self.order = order(self._tasks, sizes=self._sizes, outputs=outputs)
        self._spans = lifetimes(self._tasks, self.order, count=len(self.values), outputs=outputs)
        self._number = number
        self._root = list(range(len(self.values)))
        self._ahead = [0] * len(self.values)  # bytes of its root's buffer ahead of each value
        self._whole_sizes = list(self._sizes)
        joined = {node: parts_of(node) for node in calls(graph, "cat")}
        self.joined = {node: parts for node, parts in joined.items() if parts}
        self._parts = {part for parts in self.joined.values() for part in parts}
        for node, parts in self.joined.items():
            self._join(node, parts)
        for step, place in enumerate(self.order):
            self._share(works[self.sequence[place]], step)

    def _join(self, node: Node, parts: Sequence[Node]) -> None:
        """Let the parts of a value lie one after the other in one buffer, the first one's."""
        first = self._number[parts[0]]
        ahead = 0
        for index in (self._number[part] for part in parts):
            self._root[index], self._ahead[index] = first, ahead
            ahead += self._sizes[index]
        self._whole_sizes[first] = type_of(node).nbytes

    def _share(self, work: Work, step: int) -> None:
        """Let what a kernel writes take over the bytes of what it is the last to read."""
        taken: set[Node] = set()
        for read, write in work.in_place:
            if read not in self._number or (taken | self._parts) & {read, write}:
                continue
            source, target = self._number[read], self._number[write]
            kept = read in self.yielded or read in self.lasting
            dies = self._spans[source][1] == step + 1 and not kept
            if dies and self._sizes[source] == self._sizes[target]:
                self._root[target] = self._root[source]
                taken |= {read, write}

    def buffers(self, alignment_bytes: int) -> list[Buffer]:
        """One buffer for all values that share bytes."""
        spans: dict[int, tuple[int, int]] = {}
        for index, root in enumerate(self._root):
            lower, upper = self._spans[index]
            old = spans.get(root, (lower, upper))
            spans[root] = (min(lower, old[0]), max(upper, old[1], lower + 1))
        return [
            Buffer(
                id=self.values[root].name,
                lower=lower,
                upper=upper,
                size=self._whole_sizes[root],
                alignment=alignment_bytes,
            )
            for root, (lower, upper) in spans.items()
        ]

    def offsets(self, packed: Mapping[str, int]) -> dict[Node, int]:
        """Where each value lies, and each that is joined in place, from where the buffers do."""
        found = {
            node: packed[self.values[root].name] + ahead
            for node, root, ahead in zip(self.values, self._root, self._ahead, strict=True)
        }
        return found | {node: found[parts[0]] for node, parts in self.joined.items()}

    def told(self, node: Node, offset: int) -> Value:
        """A value for the report."""
        lower, upper = self._spans[self._number[node]]
        return Value(
            name=node.name,
            scope=scope_of(node),
            nbytes=type_of(node).nbytes,
            lower=lower,
            upper=upper,
            offset=offset,
        )


def _dependencies(works: Sequence[Work], loss: Node | None) -> list[set[int]]:
    """What has to run before each kernel.

    A kernel waits for those that write what it reads. One that updates a parameter waits for all
    others that read it, and for the loss, so that a failure up to there changes nothing.
    """
    writer = {node: index for index, work in enumerate(works) for node in work.writes}
    readers: dict[Node, set[int]] = {}
    for index, work in enumerate(works):
        for node in work.reads:
            readers.setdefault(node, set()).add(index)
    after: list[set[int]] = []
    for index, work in enumerate(works):
        earlier = {writer[node] for node in work.reads if node in writer}
        for node in work.updates:
            earlier |= readers.get(node, set())
        if work.updates and loss in writer:
            earlier.add(writer[loss])
        after.append(earlier - {index})
    return after


def _sorted(after: Sequence[set[int]]) -> list[int]:
    """A topological order, as near to the given one as there is."""
    missing = [len(earlier) for earlier in after]
    behind: list[list[int]] = [[] for _ in after]
    for index, earlier in enumerate(after):
        for other in earlier:
            behind[other].append(index)
    ready = [index for index, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    result: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        result.append(index)
        for later in behind[index]:
            missing[later] -= 1
            if not missing[later]:
                heapq.heappush(ready, later)
    if len(result) < len(after):
        raise PlanError(
            where="order of kernels",
            found=f"{len(after) - len(result)} kernels wait for each other",
            needed="the loss and all reads of a parameter ahead of its update",
            remedy="This is a fault of the compiler: please report it.",
        )
    return result
