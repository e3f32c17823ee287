"""What ``fuse`` asks of nodes and groups: domains, walks, rows and columns."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from math import prod

from torch.fx import Graph, Node

from pockengine.ir.access import access, storage_order
from pockengine.ir.graph import calls, is_op, kind_of, op_name, type_of
from pockengine.ir.ops import ALONE, Kind
from pockengine.ir.types import DType
from pockengine.ir.verify import base_of, is_only_reshaped

_VECTOR = 16  # a reshape may split the innermost axis only into rows of whole vectors


@dataclass(slots=True, eq=False)
class Group:
    """A group under construction.

    Args:
        index: its number in the order of making.
        forward: whether its nodes belong to the forward pass.
        form: map, rows (reductions over the innermost axes and what follows from them), reduce,
            contract, stencil or alone.
        shape: extents of the iteration domain.
        row_axes: for rows, how many trailing axes a row has.
        before: groups that have to run earlier, transitively.
        columns: for a contraction that adds up its columns, how many it has; 0: it does not.
    """

    index: int
    forward: bool
    form: str
    shape: tuple[int, ...]
    row_axes: int = 0
    nodes: list[Node] = field(default_factory=list)
    before: set[Group] = field(default_factory=set)
    columns: int = 0

    @property
    def row_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of a value with one element a row."""
        rows = self.shape[: len(self.shape) - self.row_axes]
        return (rows, rows + (1,) * self.row_axes) if self.form == "rows" else ()

    def reads_own_row(self, operand: Node, reader: Node) -> bool:
        """Whether a value with one element a row is read at the reader's own row.

        Where a row has as many elements as there are rows, the same shape may stand along it.
        """
        shape, base = type_of(operand).shape, base_of(operand)
        if type_of(base).shape not in self.row_shapes:
            return False
        if type_of(base).size == 1:
            return True  # of the only row
        along = type_of(reader).shape
        own = along if along in self.row_shapes and along != self.shape else self.row_shapes[-1]
        return shape == own and is_only_reshaped(operand)


def readers_of(graph: Graph) -> dict[Node, list[Node]]:
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


def form(node: Node) -> tuple[str, tuple[int, ...], int]:
    """A new group's form, domain and row axes."""
    shape = type_of(node).shape
    kind = kind_of(node)
    if op_name(node) in ALONE:
        return "alone", shape, 0
    if kind is Kind.CONTRACT:
        return ("stencil" if _is_depthwise(node) else "contract"), shape, 0
    if kind is Kind.STENCIL:
        return "stencil", shape, 0
    if kind is Kind.REDUCE:
        source = source_of(node)
        if is_row_reduction(node):
            return "rows", type_of(source).shape, row_axes(node)
        return "reduce", type_of(source).shape, 0
    return "map", shape, 0


def _is_depthwise(node: Node) -> bool:
    return op_name(node).startswith("conv2d") and bool(node.args[-1] != 1)


def is_weight_side(reader: Node, node: Node) -> bool:
    """Whether a contraction packs this operand anyway: matmul's second, a convolution's weight."""
    if op_name(reader) == "conv2d_weight_grad" or base_of(reader.args[0]) is node:
        return False
    if op_name(reader) == "matmul" and type_of(reader).order:
        return False  # the lowering exchanges the operands there
    operand = reader.args[1]
    assert isinstance(operand, Node)
    return base_of(operand) is node and access(operand) is not None


def column_axis(contraction: Node) -> int | None:
    """The axis of a weight gradient that its kernel's columns run along; None for all else."""
    if op_name(contraction) == "conv2d_weight_grad" and not _is_depthwise(contraction):
        return 0
    if op_name(contraction) == "matmul" and type_of(contraction).order == (1, 0):
        return 0  # the lowering exchanges the operands there
    return None


def adds_up_columns(reduction: Node, contraction: Node) -> bool:
    """Whether a sum has one element a column of a weight gradient, of values of its shape."""
    axis, found = column_axis(contraction), type_of(contraction)
    source = source_of(reduction)
    return (
        axis is not None
        and op_name(reduction) == "sum"
        and _is_summed(contraction, axis)
        and type_of(source).shape == found.shape
        and storage_order(source) == storage_order(contraction)
        and reduction.args[1] == tuple(a for a in range(len(found.shape)) if a != axis)
    )


def _is_summed(contraction: Node, axis: int) -> bool:
    """Whether a contraction adds something up, for several rows."""
    found = type_of(contraction)
    operands = contraction.all_input_nodes
    return (
        found.dtype is DType.F32
        and found.size > found.shape[axis]
        and all(type_of(operand).size for operand in operands)
    )


def adds_up_gradient(reduction: Node, contraction: Node) -> bool:
    """Whether a sum has one element a column of the gradient that a weight gradient reads."""
    axis = column_axis(contraction)
    if axis is None or op_name(reduction) != "sum" or not _is_summed(contraction, axis):
        return False
    source = source_of(reduction)
    conv = op_name(contraction) == "conv2d_weight_grad"
    gradient = contraction.args[1 if conv else 0]
    assert isinstance(gradient, Node)
    axes = reduction.args[1]
    assert isinstance(axes, tuple)
    kept = [a for a in range(len(type_of(source).shape)) if a not in axes]
    shown, read = access(source), access(gradient)
    if base_of(source) is not base_of(gradient) or len(kept) != 1 or not shown or not read:
        return False
    column = 1 if conv else 0
    return (
        type_of(source).size == type_of(gradient).size == type_of(base_of(source)).size
        and type_of(source).shape[kept[0]] == type_of(gradient).shape[column]
        and shown.strides[kept[0]] == read.strides[column]
    )


def source_of(reduction: Node) -> Node:
    """What a reduction (or a view) reads."""
    source = reduction.args[0]
    assert isinstance(source, Node)
    return source


def is_row_reduction(node: Node) -> bool:
    """Whether a reduction runs over all of the innermost axes of a row-major value."""
    if kind_of(node) is not Kind.REDUCE:
        return False
    source = source_of(node)
    rank = len(type_of(source).shape)
    axes = node.args[1]
    assert isinstance(axes, tuple)
    trailing = tuple(range(rank - len(axes), rank))
    return len(axes) < rank and axes == trailing and storage_order(source) == tuple(range(rank))


def row_axes(node: Node) -> int:
    """How many axes a reduction runs over."""
    axes = node.args[1]
    assert isinstance(axes, tuple)
    return len(axes)


def same_columns(a: Node, b: Node) -> bool:
    """Whether two reductions sum the same axes of values that lie alike."""
    first, second = source_of(a), source_of(b)
    return (
        a.args[1] == b.args[1]
        and type_of(first).shape == type_of(second).shape
        and storage_order(first) == storage_order(second)
    )


def in_place(operand: Node, reader: Node) -> bool:
    """Whether the reader's element i reads the operand's element i."""
    return type_of(operand).shape == type_of(reader).shape and keeps_place(operand)


def keeps_place(operand: Node) -> bool:
    """Whether a value is seen as it is stored, or through reshapes that keep the walk."""
    node = operand
    while kind_of(node) is Kind.VIEW:
        source = source_of(node)
        if not is_op(node, "reshape") or not same_walk(type_of(source).shape, type_of(node).shape):
            return False
        node = source
    return True


def same_walk(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether a reshape between the shapes keeps whole vectors of the innermost axis together."""
    if a == b or prod(a) != prod(b):
        return a == b
    inner_a = next((e for e in reversed(a) if e > 1), 1)
    inner_b = next((e for e in reversed(b) if e > 1), 1)
    if inner_a == inner_b:
        return True
    low, high = sorted((inner_a, inner_b))
    return high % low == 0 and low % _VECTOR == 0


def is_row_major(group: Group) -> bool:
    """Whether a group's full-sized values lie in the order of their axes."""
    identity = tuple(range(len(group.shape)))
    return all(storage_order(n) == identity for n in group.nodes if type_of(n).shape == group.shape)


def order_agrees(group: Group, node: Node) -> bool:
    """Whether a node lies in memory as the group's values of its shape do."""
    first = next((n for n in group.nodes if type_of(n).shape == type_of(node).shape), None)
    if first is None:
        return group.form != "rows" or type_of(node).order == ()
    return type_of(first).order == type_of(node).order or kind_of(node) is Kind.UPDATE
