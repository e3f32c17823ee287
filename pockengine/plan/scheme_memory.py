"""When the values of any scheme's step are live, without compiling it: its arena in milliseconds.

All gradients are fused into kernels once. A scheme keeps some of the kernels, in the same order;
what one of its kernels makes for another, or keeps for the backward pass, takes bytes from the one
to the other. What is computed again is computed inside the first kernel that needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pockengine.ir.forward import forward_values
from pockengine.ir.graph import ancestors, group_of, kind_of, outputs_of, role_of, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.types import DType, Role
from pockengine.ir.verify import base_of
from pockengine.passes.fuse import fuse
from pockengine.passes.saved_cut import Flags, Numbers, Places
from pockengine.plan.amounts import gathered
from pockengine.plan.costs import memory_time, work_ns
from pockengine.plan.flops import node_flops
from pockengine.plan.order import Task, order
from pockengine.plan.scheme_costs import SchemeCosts, Selection, Walk

_TRANSIENT = (Role.INPUT, Role.TARGET, Role.HYPER)

Bytes = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lives:
    """The transient values of a scheme's step, one element each.

    Args:
        value: which one it is, as a number that is the same for all schemes.
        first: the point of the schedule at which it is made.
        last: the last point at which it is read.
        nbytes: aligned; negative for bytes that a result takes over from what dies with it.
        points: of the schedule, the same for all schemes.
        walk: what else the scheme costs.
        amounts: of work, as ``plan.amounts`` orders them.
    """

    value: Places
    first: Places
    last: Places
    nbytes: Bytes
    points: int
    walk: Walk
    amounts: Numbers

    @property
    def live_bytes(self) -> Bytes:
        """Bytes live at each point."""
        change = np.zeros(self.points + 1, np.int64)
        np.add.at(change, self.first, self.nbytes)
        np.subtract.at(change, self.last + 1, self.nbytes)
        return np.cumsum(change)[:-1]

    @property
    def peak_bytes(self) -> int:
        """The most at any point."""
        return int(self.live_bytes.max(initial=0))


class SchemeMemory:
    """Lifetimes of any scheme of one captured model: seconds to set up, milliseconds a scheme.

    Args:
        costs: of the same model; they know what a scheme computes and keeps.
        alignment_bytes: of every value.
    """

    def __init__(self, costs: SchemeCosts, *, alignment_bytes: int = 64) -> None:
        self._costs, self._alignment = costs, alignment_bytes
        nodes = self._nodes = costs.nodes
        fused = {node.name: node for node in fuse(costs.graph).nodes}
        groups = [group_of(fused[node.name]) for node in nodes]
        forward = forward_values(costs.graph)
        place = {node: index for index, node in enumerate(nodes)}
        self._forward = np.array([node in forward for node in nodes])
        self._point = self._apart([-1 if group is None else group for group in groups])
        self.points = max(int(self._point.max(initial=0)) + 1, 1)
        self._nbytes = np.array([type_of(node).nbytes for node in nodes], np.float64)
        self._is_input = np.array([role_of(node) in _TRANSIENT for node in nodes])
        self._is_made = self._point >= 0
        found = outputs_of(costs.graph)
        assert found.loss is not None
        self._loss = place[base_of(found.loss)]
        needed = ancestors((found.loss,))
        extra = np.array([node not in needed for node in nodes])
        self._extra = np.flatnonzero(extra & self._forward & self._is_made)[::-1].tolist()
        edges = sorted(
            {
                (place[base_of(operand)], index)
                for index, node in enumerate(nodes)
                if self._is_made[index]
                for operand in node.all_input_nodes
            }
        )
        self._source, self._reader = np.array(edges, np.intp).reshape(-1, 2).T
        self._operands: list[list[int]] = [[] for _ in nodes]
        self._readers: list[list[int]] = [[] for _ in nodes]
        for source, reader in edges:
            self._operands[reader].append(source)
            self._readers[source].append(reader)
        _, self._far = np.unique(
            self._source * (self.points + 1) + self._point[self._reader], return_index=True
        )
        self._far = self._far[
            self._point[self._source[self._far]] != self._point[self._reader[self._far]]
        ]
        self._work_ns = np.array([work_ns(node) for node in nodes], np.float64)
        self._flops = np.array([node_flops(node) for node in nodes], np.float64)
        self._crossing = self._forward[self._source] & ~self._forward[self._reader]
        self._point = self._ordered(self._point)
        self._pairs = self._in_place()

    def _apart(self, groups: list[int]) -> Places:
        """Kernels of their own for forward values that fusion computes in the backward pass.

        It does so with those that only the backward pass reads; one that is kept is not among them.
        """
        mixed = {group for group, ahead in zip(groups, self._forward, strict=True) if not ahead}
        fresh = max(groups, default=-1) + 1
        found = []
        for group, ahead in zip(groups, self._forward, strict=True):
            alone = ahead and group >= 0 and group in mixed
            found.append(fresh if alone else group)
            fresh += alone
        return np.array(found, np.intp)

    def _ordered(self, group: Places) -> Places:
        """The point at which each node's kernel runs, in an order that keeps few bytes.

        All of the forward pass comes first. What it makes counts as freed where it is read last
        there: which gradients will ask for it differs from scheme to scheme.
        """
        reads: list[set[int]] = [set() for _ in range(self.points)]
        after: list[set[int]] = [set() for _ in range(self.points)]
        writes: list[list[int]] = [[] for _ in range(self.points)]
        for index in np.flatnonzero(group >= 0).tolist():
            writes[group[index]].append(index)
        for source, reader in zip(self._source.tolist(), self._reader.tolist(), strict=True):
            if group[source] >= 0 and group[source] != group[reader]:
                crosses = self._forward[source] and not self._forward[reader]
                (after if crosses else reads)[group[reader]].add(source)
        is_forward = [all(self._forward[w]) for w in writes]
        first = [k for k in range(self.points) if is_forward[k]]
        second = [k for k in range(self.points) if not is_forward[k]]
        found = [*self._best(first, reads, writes), *self._best(second, reads, writes)]
        point = np.empty(self.points + 1, np.intp)
        point[found] = np.arange(self.points)
        point[-1] = -1
        return point[group]

    def _best(
        self, kernels: list[int], reads: list[set[int]], writes: list[list[int]]
    ) -> list[int]:
        """Kernels in a good order."""
        inside = {value for kernel in kernels for value in writes[kernel]}
        read = {value for kernel in kernels for value in reads[kernel]}
        tasks = [
            Task(
                reads=tuple(sorted(reads[kernel] & inside)),
                writes=tuple(value for value in writes[kernel] if value in read),
            )
            for kernel in kernels
        ]
        found = order(tasks, sizes=self._aligned(self._nbytes).tolist())
        return [kernels[place] for place in found]

    def _in_place(self) -> list[tuple[int, int]]:
        """Pairs (read, written) of one kernel of which the second may take the bytes of the first.

        A chain of elementwise calls of one size leads from the first to the second.
        """
        pairs = []
        for index, node in enumerate(self._nodes):
            if kind_of(node) is not Kind.MAP or not self._is_made[index]:
                continue
            stack, seen = [index], {index}
            while stack:
                for source in self._operands[stack.pop()]:
                    if source in seen or not self._alike(source, index):
                        continue
                    seen.add(source)
                    if self._point[source] != self._point[index]:
                        pairs.append((source, index))
                    elif kind_of(self._nodes[source]) is Kind.MAP:
                        stack.append(source)
        return pairs

    def _alike(self, one: int, other: int) -> bool:
        a, b = type_of(self._nodes[one]), type_of(self._nodes[other])
        return a.dtype is b.dtype is not DType.BOOL and a.size == b.size

    def lives(self, scheme: Mapping[str, float]) -> Lives:
        """The lifetimes of a scheme's transient values.

        Args:
            scheme: fraction by canonical name of parameter (``Scheme.resolve``).

        Raises:
            SchemeError: the loss depends on none of the parameters.
        """
        found = [self._lives(walk) for walk in self._costs.walks(scheme)]
        return min(found, key=lambda lives: memory_time(lives.peak_bytes, lives.walk.ns))

    def lives_at_least(self, scheme: Mapping[str, float]) -> Lives:
        """As ``lives``, where nothing is computed again but what is cheaper than to keep it."""
        return self._lives(self._costs.least(scheme))

    def _lives(self, walk: Walk) -> Lives:
        chosen, again = walk.selection, walk.again
        first, last, sole = self._spans(chosen, again)
        copies = self._repeated(chosen, again, last)
        sizes = self._aligned(self._nbytes * chosen.scale)
        kept = np.flatnonzero(~sole & (first >= 0))
        lent = self._lent(first, last, sole)
        at = last[lent]
        made = np.array(copies, np.intp).reshape(-1, 3)
        count = len(self._nodes)
        return Lives(  # last of all the learning rate, which is read to the end
            value=np.concatenate([kept, count + made[:, 0], 2 * count + lent, [3 * count]]),
            first=np.concatenate([first[kept], made[:, 1], at, [0]]),
            last=np.concatenate([last[kept], made[:, 2], at, [self.points - 1]]),
            nbytes=np.concatenate(
                [sizes[kept], sizes[made[:, 0]], -sizes[lent], [self._alignment]]
            ),
            points=self.points,
            walk=walk,
            amounts=self._amounts(chosen, again, ~sole & (first >= 0)),
        )

    def peak_bytes(self, scheme: Mapping[str, float]) -> int:
        """The most bytes live at once in a scheme's step; SchemeError as ``lives``."""
        return self.lives(scheme).peak_bytes

    def _amounts(self, chosen: Selection, again: AbstractSet[int], stored: Flags) -> Numbers:
        """The work of a step: its kernels by how much they compute for each byte they move."""
        times = chosen.computed.astype(np.float64)
        times[list(again)] += 1  # in the forward pass and once more
        on = (self._point >= 0) & chosen.computed
        point = self._point[on]
        work = self._summed(point, (self._work_ns * chosen.scale * times)[on])
        flops = self._summed(point, (self._flops * chosen.scale * times)[on])
        runs = np.bincount(point, minlength=self.points) > 0
        sizes = self._nbytes * chosen.scale
        source, reader = self._source[self._far], self._reader[self._far]
        reads = chosen.computed[reader]
        moved = self._summed(self._point[reader[reads]], sizes[source[reads]])
        moved += self._summed(self._point[on & stored], sizes[on & stored])
        return gathered(flops, work, moved, runs, 4.0 * chosen.updated)

    def _summed(self, point: Places, values: Numbers) -> Numbers:
        """Sums of values by point of the schedule."""
        return np.bincount(point, values, self.points).astype(np.float64)

    def _aligned(self, nbytes: NDArray[np.float64]) -> Bytes:
        blocks = np.ceil(nbytes / self._alignment)
        return (blocks * self._alignment).astype(np.int64)

    def _spans(self, chosen: Selection, again: AbstractSet[int]) -> tuple[Places, Places, Flags]:
        """First and last point of each value, and whether none but its own kernel reads it.

        What is computed again counts as read by the forward pass only.
        """
        is_again = np.zeros(len(self._nodes), np.bool_)
        is_again[list(again)] = True
        computed = self._made_once(chosen, is_again)
        edge = computed[self._source] & computed[self._reader]
        edge &= ~(self._crossing & is_again[self._source])
        source, reader = self._source[edge], self._reader[edge]
        first = np.where(computed & self._is_made, self._point, -1)
        first = np.where(computed & self._is_input, 0, first)
        last = first.copy()
        np.maximum.at(last, source, self._point[reader])
        sole = last == first
        last[self._loss] = self.points - 1
        sole[self._loss] = False
        sole &= ~self._is_input
        return first, last, sole

    def _made_once(self, chosen: Selection, again: Flags) -> Flags:
        """What is computed besides what only the backward pass reads and makes itself."""
        computed = chosen.computed.copy()
        for index in self._extra:
            if computed[index] and again[index]:
                computed[index] = any(
                    computed[reader] for reader in self._readers[index] if self._forward[reader]
                )
        return computed

    def _repeated(
        self, chosen: Selection, again: AbstractSet[int], last: Places
    ) -> list[tuple[int, int, int]]:
        """What is computed again and read by several kernels; lengthens the lives of the rest."""
        computed = chosen.computed
        spans: dict[int, tuple[int, int]] = {}
        edge = computed[self._source] & computed[self._reader] & self._crossing
        for source, reader in zip(
            self._source[edge].tolist(), self._reader[edge].tolist(), strict=True
        ):
            if source in again:
                _widen(spans, source, int(self._point[reader]))
        for index in sorted(again, reverse=True):
            if index not in spans:
                continue
            at = spans[index][0]
            for source in self._operands[index]:
                if source in again:
                    _widen(spans, source, at)
                elif computed[source]:
                    last[source] = max(last[source], at)
        return [(index, low, high) for index, (low, high) in spans.items() if low < high]

    def _lent(self, first: Places, last: Places, sole: Flags) -> Places:
        """Values that die in a kernel which writes another of their size in their place."""
        lent: dict[int, int] = {}
        for source, index in self._pairs:
            if first[index] < 0 or first[source] < 0 or sole[index] or sole[source]:
                continue
            dies = last[source] == self._point[index]
            if dies and source not in lent and index not in lent.values():
                lent[source] = index
        return np.array(sorted(lent), np.intp)


def _widen(spans: dict[int, tuple[int, int]], index: int, point: int) -> None:
    low, high = spans.get(index, (point, point))
    spans[index] = (min(low, point), max(high, point))
