"""Gather ops into groups, each of which becomes one kernel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch.fx import Graph, Node

from pockengine.ir.access import access, storage_order
from pockengine.ir.graph import (
    calls,
    is_op,
    kind_of,
    op_name,
    outputs_of,
    rebuild,
    set_group,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.verify import base_of

MOST_OPERANDS = 24  # of a group, which leaves room below the runtime's 32
_POINTWISE = (Kind.MAP, Kind.MOVE, Kind.UPDATE)
_ALONE = ("scatter_rows", "pack_bits", "cat")
_VECTOR = 16  # a reshape may split the innermost axis only into rows of whole vectors


@dataclass(slots=True, eq=False)
class _Group:
    """A group under construction.

    Args:
        form: map, rows (reductions over the innermost axes and what follows from them), reduce, contract,
            stencil or alone.
        shape: extents of the iteration domain.
        row_axes: for rows, how many trailing axes a row has.
        before: groups that have to run earlier, transitively.
    """

    index: int
    form: str
    shape: tuple[int, ...]
    row_axes: int = 0
    nodes: list[Node] = field(default_factory=list)
    before: set[_Group] = field(default_factory=set)


def fuse(graph: Graph) -> Graph:
    """Number every stored or computed node with its group, and bring groups together in the order.

    An elementwise op joins the group of the latest producer whose loops visit its elements: the tail of
    a contraction, a map, or rows that share a reduction (softmax and layer normalization become one
    group). Values that only feed a column reduction, or only the weight side of a contraction, are
    computed inside it. An update waits for every other reader of its target. Views have no group: they
    are ways to read.

    Not fused: scatters, bit packing and concatenation stand alone; an op whose joining would make two
    groups wait for each other.

    Source: PockEngine, section 3 (operator fusion); the acyclicity test is the classical one.
    """
    builder = _Builder(graph)
    for node in calls(graph):
        if kind_of(node) is not Kind.VIEW and node not in builder.delayed:
            builder.place(node)
    return builder.result()


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.group: dict[Node, _Group] = {}
        self.groups: list[_Group] = []
        self.readers = _readers(graph)
        self.yielded = {base_of(node) for node in outputs_of(graph).nodes}
        self.delayed = self._delayed()

    def _delayed(self) -> set[Node]:
        """Pointwise nodes that are computed inside their one reader."""
        found: set[Node] = set()
        for node in reversed(list(calls(self.graph))):
            if kind_of(node) is not Kind.MAP or node in self.yielded or op_name(node) in _ALONE:
                continue
            readers = self.readers[node]
            if len(readers) == 1 and self._takes(readers[0], node, found):
                found.add(node)
        return found

    def _takes(self, reader: Node, node: Node, delayed: set[Node]) -> bool:
        if reader in delayed:
            # the chain stays on one domain: a broadcast operand would be computed again and again
            same = type_of(node).shape == type_of(reader).shape
            return same and node in reader.all_input_nodes
        if kind_of(reader) is Kind.CONTRACT:
            return _is_weight_side(reader, node)
        if kind_of(reader) is Kind.REDUCE:
            return not _is_row_reduction(reader) and reader.args[0] is node
        return op_name(reader) == "pack_bits"

    def place(self, node: Node) -> None:
        """Put a node, and the delayed ones that it takes along, into a group."""
        taken = self._taken(node)
        operands = {base_of(o) for n in taken for o in n.all_input_nodes} - set(taken)
        needs = {self.group[o] for o in operands if o in self.group}
        if kind_of(node) is Kind.UPDATE:
            needs |= self._readers_of_target(node)
        group = self._join(node, operands, needs)
        if group is None:
            group = _Group(len(self.groups), *_form(node))
            self.groups.append(group)
        group.nodes += taken
        for member in taken:
            self.group[member] = group
        self._order(group, needs - {group})

    def _taken(self, node: Node) -> list[Node]:
        """The node after the delayed nodes that it reads, in topological order."""
        found: list[Node] = []
        for operand in node.all_input_nodes:
            base = base_of(operand)
            if base in self.delayed and base not in found:
                found += [n for n in self._taken(base) if n not in found]
        return [*found, node]

    def _readers_of_target(self, node: Node) -> set[_Group]:
        target = base_of(node.args[0])
        return {self.group[r] for r in self.readers[target] if r in self.group}

    def _join(self, node: Node, operands: set[Node], needs: set[_Group]) -> _Group | None:
        if op_name(node) in _ALONE:
            return None
        candidates = sorted(
            (g for g in needs if self._accepts(g, node)),
            key=lambda g: (g.form == "contract", g.index),
            reverse=True,
        )
        for group in candidates:
            waits = any(group in other.before for other in needs)
            if not waits and self._count_operands(group, operands) <= MOST_OPERANDS:
                if group.form == "map" and kind_of(node) is Kind.REDUCE:
                    group.form = "rows"
                    group.row_axes = _row_axes(node)
                return group
        return None

    def _count_operands(self, group: _Group, operands: set[Node]) -> int:
        outside = {base_of(o) for n in group.nodes for o in n.all_input_nodes} | operands
        inside = set(group.nodes)
        return len(outside - inside) + len(inside)

    def _accepts(self, group: _Group, node: Node) -> bool:
        if group.form == "alone":
            return False
        if kind_of(node) is Kind.REDUCE:
            return self._accepts_reduction(group, node)
        if kind_of(node) not in _POINTWISE:
            return False
        if kind_of(node) is Kind.MOVE:
            return False  # reads elsewhere than it writes
        if group.form == "reduce":
            return self._follows(group, node, type_of(group.nodes[-1]).shape)
        if group.form == "rows" and self._is_per_row(group, node):
            return True
        return self._follows(group, node, group.shape)

    def _accepts_reduction(self, group: _Group, node: Node) -> bool:
        source = node.args[0]
        assert isinstance(source, Node)
        if group.form not in ("map", "rows") or not _is_row_reduction(node):
            return False
        if type_of(source).shape != group.shape or not self._row_major(group):
            return False
        return group.form == "map" or group.row_axes == _row_axes(node)

    def _row_major(self, group: _Group) -> bool:
        identity = tuple(range(len(group.shape)))
        return all(
            storage_order(node) == identity for node in group.nodes if type_of(node).shape == group.shape
        )

    def _is_per_row(self, group: _Group, node: Node) -> bool:
        """Whether a node has one element a row, and everything it reads inside is per row as well."""
        rows = group.shape[: len(group.shape) - group.row_axes]
        kept = rows + (1,) * group.row_axes
        if type_of(node).shape not in (rows, kept):
            return False
        return all(
            type_of(o).shape in (rows, kept)
            for o in node.all_input_nodes
            if self.group.get(base_of(o)) is group
        )

    def _follows(self, group: _Group, node: Node, shape: tuple[int, ...]) -> bool:
        """Whether a node's elements are the domain's, and each operand inside is read in place."""
        if _size(type_of(node).shape) != _size(shape) or not _same_walk(shape, type_of(node).shape):
            return False
        if group.form == "rows" and type_of(node).shape != shape:
            return False
        if group.form in ("rows", "map") and not self._order_agrees(group, node):
            return False
        for operand in node.all_input_nodes:
            if self.group.get(base_of(operand)) is group and not _in_place(operand, node):
                per_row = group.form == "rows" and _is_row_value(group, operand)
                if not per_row:
                    return False
        return True

    def _order_agrees(self, group: _Group, node: Node) -> bool:
        first = next((n for n in group.nodes if type_of(n).shape == type_of(node).shape), None)
        if first is None:
            return group.form != "rows" or type_of(node).order == ()
        return type_of(first).order == type_of(node).order or kind_of(node) is Kind.UPDATE

    def _order(self, group: _Group, needs: Iterable[_Group]) -> None:
        earlier = set(needs)
        for other in needs:
            earlier |= other.before
        for later in self.groups:
            if later is group or group in later.before:
                later.before |= earlier

    def result(self) -> Graph:
        """The graph with its nodes gathered by group, groups in a topological order."""
        ordered: list[_Group] = []
        waiting = list(self.groups)
        done: set[_Group] = set()
        while waiting:
            ready = next(g for g in waiting if g.before <= done)
            waiting.remove(ready)
            ordered.append(ready)
            done.add(ready)
        return _gathered(self.graph, ordered)


def _gathered(graph: Graph, ordered: list[_Group]) -> Graph:
    new = rebuild(graph)
    twin = {old.name: old for old in graph.nodes}
    by_name = {node.name: node for node in new.nodes}
    number = {n.name: i for i, g in enumerate(ordered) for n in g.nodes}
    positions = {node.name: place for place, node in enumerate(graph.nodes)}
    first = next(node for node in new.nodes if node.op == "output")
    placed: set[str] = set()

    def put(name: str) -> None:
        if name in placed or twin[name].op != "call_function":
            return
        placed.add(name)
        for operand in twin[name].all_input_nodes:
            if kind_of(operand) is Kind.VIEW:
                put(operand.name)
        first.prepend(by_name[name])

    for index, group in enumerate(ordered):
        for node in sorted(group.nodes, key=lambda n: positions[n.name]):
            put(node.name)
            set_group(by_name[node.name], index)
    for node in outputs_of(graph).nodes:
        put(node.name)
    assert len(number) + sum(kind_of(n) is Kind.VIEW for n in graph.nodes) >= len(placed)
    return new


def _readers(graph: Graph) -> dict[Node, list[Node]]:
    """The computing nodes that read each stored value, through views."""
    readers: dict[Node, list[Node]] = defaultdict(list)
    for node in calls(graph):
        if kind_of(node) is Kind.VIEW:
            continue
        for operand in node.all_input_nodes:
            base = base_of(operand)
            if node not in readers[base]:
                readers[base].append(node)
    return readers


def _form(node: Node) -> tuple[str, tuple[int, ...], int]:
    """A new group's form, domain and row axes."""
    shape = type_of(node).shape
    kind = kind_of(node)
    if op_name(node) in _ALONE:
        return "alone", shape, 0
    if kind is Kind.CONTRACT:
        return ("stencil" if _is_depthwise(node) else "contract"), shape, 0
    if kind is Kind.STENCIL:
        return "stencil", shape, 0
    if kind is Kind.REDUCE:
        source = node.args[0]
        assert isinstance(source, Node)
        if _is_row_reduction(node):
            return "rows", type_of(source).shape, _row_axes(node)
        return "reduce", type_of(source).shape, 0
    return "map", shape, 0


def _is_depthwise(node: Node) -> bool:
    return op_name(node).startswith("conv2d") and node.args[-1] != 1


def _is_weight_side(reader: Node, node: Node) -> bool:
    """Whether a contraction packs this operand anyway: matmul's second, a convolution's weight."""
    if op_name(reader) == "conv2d_weight_grad" or base_of(reader.args[0]) is node:
        return False
    if op_name(reader) == "matmul" and type_of(reader).order:
        return False  # the lowering exchanges the operands there
    operand = reader.args[1]
    assert isinstance(operand, Node)
    return base_of(operand) is node and access(operand) is not None


def _is_row_reduction(node: Node) -> bool:
    """Whether a reduction runs over all of the innermost axes of a row-major value."""
    source = node.args[0]
    assert isinstance(source, Node)
    rank = len(type_of(source).shape)
    axes = node.args[1]
    assert isinstance(axes, tuple)
    trailing = tuple(range(rank - len(axes), rank))
    return len(axes) < rank and axes == trailing and storage_order(source) == tuple(range(rank))


def _row_axes(node: Node) -> int:
    axes = node.args[1]
    assert isinstance(axes, tuple)
    return len(axes)


def _is_row_value(group: _Group, node: Node) -> bool:
    rows = group.shape[: len(group.shape) - group.row_axes]
    return type_of(node).shape in (rows, rows + (1,) * group.row_axes)


def _in_place(operand: Node, reader: Node) -> bool:
    """Whether the reader's element i reads the operand's element i: equal shapes, views that keep place."""
    if type_of(operand).shape != type_of(reader).shape:
        return False
    node = operand
    while kind_of(node) is Kind.VIEW:
        source = node.args[0]
        assert isinstance(source, Node)
        if not is_op(node, "reshape") or not _same_walk(type_of(source).shape, type_of(node).shape):
            return False
        node = source
    return True


def _same_walk(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether a reshape between the shapes keeps whole vectors of the innermost axis together."""
    if a == b or _size(a) != _size(b):
        return a == b
    inner_a = next((e for e in reversed(a) if e > 1), 1)
    inner_b = next((e for e in reversed(b) if e > 1), 1)
    if inner_a == inner_b:
        return True
    low, high = sorted((inner_a, inner_b))
    return high % low == 0 and low % _VECTOR == 0


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
