"""Which parts of a graph run slice by slice, and in how many slices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    calls,
    group_of,
    is_op,
    kind_of,
    op_name,
    outputs_of,
    role_of,
    type_of,
)
from pockengine.ir.joined import PART_BYTES
from pockengine.ir.ops import Kind
from pockengine.ir.types import Region as Memory
from pockengine.ir.types import Role
from pockengine.ir.verify import base_of

_NOT_BY_ELEMENT = ("batch_norm", "batch_norm_input_grad", "uniform")
"""Maps whose elements depend on more than the elements at their place."""

_REDUCTIONS = ("sum", "amax", "amin", "prod")


class Table:
    """The groups of a graph: members, dependencies, stored values.

    Args:
        graph: fused, or each call but views is a group of its own.

    Attributes:
        members: the nodes of each group, in order.
        before: per group, the groups that it waits for, directly or not, as bits.
    """

    def __init__(self, graph: Graph) -> None:
        self.is_fused = any(group_of(node) is not None for node in calls(graph))
        numbers: dict[int, int] = {}
        self.members: list[list[Node]] = []
        self.group: dict[Node, int] = {}
        for node in calls(graph):
            number = self._number(node)
            if number is not None:
                if numbers.setdefault(number, len(numbers)) == len(self.members):
                    self.members.append([])
                self.members[numbers[number]].append(node)
                self.group[node] = numbers[number]
        self.yielded = {base_of(node) for node in outputs_of(graph).nodes}
        self.readers: dict[Node, set[int]] = {}
        self._extents: dict[int, _Extents] = {}
        self._direct = [self._operands(nodes) for nodes in self.members]
        self.before = [0] * len(self.members)
        for number in range(len(self.members)):  # ``fuse`` orders groups by what they read
            for other in self._direct[number]:
                self.before[number] |= self.before[other] | (1 << other)

    def _number(self, node: Node) -> int | None:
        """What a node's group is known by."""
        if self.is_fused:
            return group_of(node)
        return None if kind_of(node) is Kind.VIEW else len(self.group)

    def _operands(self, nodes: Sequence[Node]) -> set[int]:
        number = self.group[nodes[0]]
        found = set()
        for node in nodes:
            for operand in node.all_input_nodes:
                base = base_of(operand)
                self.readers.setdefault(base, set()).add(number)
                if base in self.group:
                    found.add(self.group[base])
        return found - {number}

    def extent(self, groups: Iterable[int]) -> int:
        """What the number of slices of some groups divides; 1 if one reads all of what is made."""
        inside, found = set(groups), 0
        for group in inside:
            if group not in self._extents:
                self._extents[group] = self._own_extents(self.members[group])
            known = self._extents[group]
            found = gcd(found, known.made, *(e for other, e in known.read if other in inside))
        return found

    def _own_extents(self, nodes: Sequence[Node]) -> _Extents:
        made, read = 0, []
        for node in nodes:
            made = gcd(made, leading_extent(node))
            for operand in node.all_input_nodes:
                if (other := self.group.get(base_of(operand))) is not None:
                    chain = chain_extents(operand) if is_along(node, operand) else None
                    read.append((other, gcd(*chain) if chain else 1))
        return _Extents(made, tuple(read))

    def needs(self, groups: Iterable[int]) -> list[int]:
        """The groups that some groups read directly, but for themselves."""
        inside = set(groups)
        return sorted({other for g in inside for other in self._direct[g]} - inside)

    def between(self, groups: Iterable[int]) -> list[int]:
        """The other groups that wait for one of these while one of these waits for them."""
        inside = sum(1 << group for group in groups)
        ahead = 0
        for group in groups:
            ahead |= self.before[group]
        ahead &= ~inside
        return [g for g, before in enumerate(self.before) if _bit(ahead, g) and before & inside]

    def contract(self, groups: Iterable[int]) -> None:
        """Let all of these be waited for where one is, and wait for what any of them does."""
        inside = sum(1 << group for group in groups)
        ahead = inside
        for group in groups:
            ahead |= self.before[group]
        for other, before in enumerate(self.before):
            if before & inside or _bit(inside, other):
                self.before[other] |= ahead


@dataclass(frozen=True, slots=True)
class _Extents:
    """What the number of slices divides, of one group.

    Args:
        made: for what it makes.
        read: (group, divisor) for each operand that a group makes, if that is sliced as well.
    """

    made: int
    read: tuple[tuple[int, int], ...]


def _bit(bits: int, place: int) -> int:
    return bits >> place & 1


@dataclass(slots=True, eq=False)
class Region:
    """Groups that run together for one slice after the other.

    Args:
        table: of the graph.
        groups: in order.
        parts: the number of slices.
        outputs: what they make and others read.
    """

    table: Table
    groups: tuple[int, ...]
    parts: int = 0
    outputs: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """What is sliced.

    Args:
        most_bytes: that the values which a slice keeps to itself should fit into; regions of less
            stay whole.
        least_share: of the bytes that a region reads and makes: with less to itself, its slices
            gain little.
        least_rows: of a slice of a product with a weight, which each slice reads anew; None for
            none of these.
    """

    most_bytes: int
    least_share: float
    least_rows: int | None = None

    def concerns(self, graph: Graph) -> bool:
        """Whether there may be a region at all."""
        return any(self._is_large(node) for node in calls(graph, "matmul"))

    def _is_large(self, node: Node) -> bool:
        axis = leading(node)
        values = (node, *node.all_input_nodes)
        return (
            axis is not None
            and self.slices_product(node, axis)
            and any(type_of(value).nbytes > self.most_bytes for value in values)
        )

    def slices_product(self, node: Node, axis: int) -> bool:
        """Whether a ``matmul`` is sliced along its axis: one of many products, or of its rows."""
        rows = len(type_of(node).shape) - 2
        weight: Any = node.args[1]
        rows_of = node.args[0]
        of_weight = role_of(base_of(weight)) in (Role.CONST, Role.PARAM) and weight is not rows_of
        return axis < rows or (axis == rows and self.least_rows is not None and of_weight)


def regions(graph: Graph, rules: Rules) -> list[Region]:
    """The regions of a graph that are worth it, with their slices."""
    if not rules.concerns(graph):
        return []
    table = Table(graph)
    found = []
    for groups in _Grower(table, rules).grown():
        region = _Candidate(table, groups).region(rules)
        if region is not None and not table.between(groups):
            table.contract(groups)
            found.append(region)
    return found


class _Grower:
    """Joins groups that hand each other values larger than the cache."""

    def __init__(self, table: Table, rules: Rules) -> None:
        self._table = table
        self._home: dict[int, frozenset[int]] = {}
        for number, nodes in enumerate(table.members):
            if all(is_sliceable(node, rules) for node in nodes):
                self._home[number] = frozenset({number})
        for number in list(self._home):
            for base in self._large(number, rules.most_bytes):
                self._try(number, table.group[base])

    def _large(self, number: int, most_bytes: int) -> list[Node]:
        bases = {base_of(o): None for n in self._table.members[number] for o in n.all_input_nodes}
        return [
            base
            for base in bases
            if self._table.group.get(base, number) != number and type_of(base).nbytes > most_bytes
        ]

    def _try(self, number: int, other: int) -> None:
        if other not in self._home or self._home[other] is self._home[number]:
            return
        both = self._home[number] | self._home[other]
        if between := self._table.between(both):
            if not all(each in self._home for each in between):
                return
            both = both.union(*(self._home[each] for each in between))
        if self._table.extent(both) > 1 and not self._table.between(both):
            self._home.update(dict.fromkeys(both, both))

    def grown(self) -> list[tuple[int, ...]]:
        """The sets of more than one group, in order."""
        found = dict.fromkeys(self._home.values())
        return [self._with_makers(groups) for groups in found if len(groups) > 1]

    def _with_makers(self, groups: frozenset[int]) -> tuple[int, ...]:
        """Some groups, with maps that are not fused yet and make values for none but them."""
        table, found = self._table, set(groups)
        extent = table.extent(found)
        for number in range(max(found), -1, -1) if not table.is_fused else ():
            (node,) = table.members[number]
            alone = node not in table.yielded and kind_of(node) is Kind.MAP
            readers = table.readers.get(node, set())
            mine = number in self._home and alone and readers and readers <= found
            if mine and table.extent({number, *found}) == extent:
                found.add(number)
        return tuple(sorted(found))


class _Candidate:
    """Groups that may become a region."""

    def __init__(self, table: Table, groups: tuple[int, ...]) -> None:
        self._table = table
        self._groups = groups
        self._inside = set(groups)
        self._nodes = [node for group in groups for node in table.members[group]]

    def region(self, rules: Rules) -> Region | None:
        """The region, if it has products and keeps much to itself."""
        stored = [node for node in self._nodes if self._is_stored(node)]
        outputs = tuple(node for node in stored if self._is_read_outside(node))
        own = sum(type_of(node).nbytes for node in stored) - sum(type_of(n).nbytes for n in outputs)
        beside = sum(type_of(node).nbytes for node in (*outputs, *self._inputs()))
        products = any(kind_of(node) is Kind.CONTRACT for node in self._nodes)
        if not products or own <= rules.most_bytes or own < rules.least_share * beside:
            return None
        parts = self._parts(own, rules, outputs)
        return Region(self._table, self._groups, parts, outputs) if parts > 1 else None

    def _parts(self, own: int, rules: Rules, outputs: Sequence[Node]) -> int:
        """The least number of slices that fit, else the most that there can be."""
        extent = self._table.extent(self._groups)
        possible = [
            n
            for n in range(1, extent + 1)
            if extent % n == 0
            and extent >= n * (rules.least_rows or 1)
            and all(type_of(o).nbytes % (n * PART_BYTES) == 0 for o in outputs)
        ]
        fitting = [n for n in possible if own <= n * rules.most_bytes]
        return fitting[0] if fitting else possible[-1] if possible else 0

    def _readers(self, node: Node) -> set[int]:
        return self._table.readers.get(node, set())

    def _is_read_outside(self, node: Node) -> bool:
        return node in self._table.yielded or bool(self._readers(node) - self._inside)

    def _is_stored(self, node: Node) -> bool:
        """Whether a value has bytes of its own; of what is not fused yet, beside products."""
        table = self._table
        readers = self._readers(node) - {table.group[node]}
        if table.is_fused or node in table.yielded or readers - self._inside:
            return bool(node in table.yielded or readers)
        beside = (node, *(reader for group in readers for reader in table.members[group]))
        return any(kind_of(each) is Kind.CONTRACT for each in beside)

    def _inputs(self) -> list[Node]:
        """The transient values that come from elsewhere."""
        inside = set(self._nodes)
        bases = {base_of(o): None for node in self._nodes for o in node.all_input_nodes}
        return [b for b in bases if b not in inside and _is_transient(b)]


def _is_transient(base: Node) -> bool:
    role = role_of(base)
    return role is None or role.region is Memory.ARENA


def is_sliceable(node: Node, rules: Rules) -> bool:
    """Whether each index of a value's leading axis is computed from that index alone."""
    kind = type_of(node)
    axis = leading(node)
    if axis is None or prod(kind.shape) == 0:
        return False
    stored = [a for a in kind.order or range(len(kind.shape)) if kind.shape[a] > 1]
    return stored[0] == axis and _is_parallel(node, axis, rules)


def leading(node: Node) -> int | None:
    """The first axis of more than one index."""
    return next((axis for axis, extent in enumerate(type_of(node).shape) if extent > 1), None)


def leading_extent(node: Node) -> int:
    """The extent of the leading axis; 1 if there is none."""
    return next((extent for extent in type_of(node).shape if extent > 1), 1)


def _is_parallel(node: Node, axis: int, rules: Rules) -> bool:
    if kind_of(node) is Kind.REDUCE:
        axes: Any = node.args[1]
        source: Any = node.args[0]
        return op_name(node) in _REDUCTIONS and leading(source) not in axes
    if is_op(node, "iota"):
        return axis != node.args[1]
    if is_op(node, "matmul"):
        return rules.slices_product(node, axis)
    return kind_of(node) is Kind.MAP and op_name(node) not in _NOT_BY_ELEMENT


def is_along(node: Node, operand: Node) -> bool:
    """Whether a sliceable node reads, for a slice, the same slice of an operand, not all of it."""
    if kind_of(node) is Kind.REDUCE:
        return True
    shape, own = type_of(operand).shape, type_of(node).shape
    axis = leading(node)
    assert axis is not None
    if is_op(node, "matmul") and axis == len(own) - 2:  # rows: all read the second operand
        return operand is node.args[0]
    return (
        len(own) - len(shape) <= axis
        and leading_extent(operand) == own[axis]
        and (leading(operand) == axis - len(own) + len(shape))
    )


def chain_extents(view: Node) -> list[int] | None:
    """Extents of the leading axis from a view to its base; None if the axis does not stay that."""
    found = [leading_extent(view)]
    while kind_of(view) is Kind.VIEW:
        source = view.args[0]
        assert isinstance(source, Node)
        if not keeps_leading(view, source):
            return None
        found.append(leading_extent(source))
        view = source
    return found


def keeps_leading(view: Node, source: Node) -> bool:
    """Whether equal slices of a view and of what it shows have the same elements."""
    axis, shown = leading(view), leading(source)
    if axis is None or shown is None:
        return False
    args: Any = view.args
    rank, rank_shown = len(type_of(view).shape), len(type_of(source).shape)
    rules: dict[str, Callable[[], Any]] = {
        "reshape": lambda: gcd(leading_extent(view), leading_extent(source)) > 1,
        "permute": lambda: args[1][axis] == shown,
        "expand": lambda: axis - rank == shown - rank_shown,
        "slice": lambda: axis == shown and args[1] != axis,
    }
    return bool(rules[op_name(view)]())
