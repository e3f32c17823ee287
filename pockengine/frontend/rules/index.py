"""ATen ops whose places are data."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer, Value, axis_of, rule
from pockengine.ir.graph import Bounds, is_op, role_of, set_bounds, type_of
from pockengine.ir.types import Role


def _bind(index: Node, extent: int) -> None:
    """State the permitted values of the input that an index comes from.

    A label is read as ``where(label != ignore, label, 0)``, through shape changes.
    """
    ignore = None
    node: object = index
    while isinstance(node, Node):
        if role_of(node) in (Role.INPUT, Role.TARGET):
            set_bounds(node, Bounds(0, extent, ignore))
            return
        if is_op(node, "where") and is_op(node.args[0], "ne"):
            assert isinstance(node.args[0], Node)
            ignore = node.args[0].args[1]
            node = node.args[1]
        elif is_op(node, "reshape", "expand", "permute", "slice", "cast"):
            node = node.args[0]
        else:
            return


@rule("embedding.default")
def _embedding(to: Legalizer, table: Node, index: Node, *_: Value, **__: Value) -> Value:
    _bind(index, type_of(table).shape[0])
    return to.emit("take_rows", table, index)


@rule("embedding_dense_backward.default")
def _embedding_backward(
    to: Legalizer, grad: Node, index: Node, count: int, padding: int, by_frequency: bool
) -> Value:
    if by_frequency:
        raise NotImplementedError("embedding gradients scaled by frequency")
    if padding >= 0:
        keep = to.emit("ne", index, padding)
        mask = to.reshape(keep, (*type_of(index).shape, 1))
        grad = to.emit("where", mask, grad, 0.0)
    return to.emit("scatter_rows", grad, index, count)


@rule("index_select.default")
def _index_select(to: Legalizer, x: Node, axis: int, index: Node) -> Value:
    shape = type_of(x).shape
    axis = axis_of(axis, len(shape))
    order = (axis, *(i for i in range(len(shape)) if i != axis))
    return _take(to, to.permute(x, order), index, order)


def _take(to: Legalizer, x: Node, index: Node, order: tuple[int, ...]) -> Value:
    shape = type_of(x).shape
    _bind(index, shape[0])
    flat = to.reshape(x, (shape[0], -(-type_of(x).size // max(shape[0], 1))))
    rows = to.emit("take_rows", flat, index)
    full = to.reshape(rows, (*type_of(index).shape, *shape[1:]))
    back = tuple(order.index(axis) for axis in range(len(order)))
    return to.permute(full, back)


@rule("index.Tensor")
def _index(to: Legalizer, x: Node, indices: Sequence[Node | None]) -> Value:
    if len(indices) != 1 or indices[0] is None:
        raise NotImplementedError("indexing by several tensors")
    shape = type_of(x).shape
    flat = to.reshape(x, (shape[0], -(-type_of(x).size // max(shape[0], 1))))
    _bind(indices[0], shape[0])
    return to.reshape(to.emit("take_rows", flat, indices[0]), to.shape)


def _hits(to: Legalizer, index: Node, axis: int, shape: tuple[int, ...]) -> Node:
    """Where a position along the axis is the one an index of extent 1 there names."""
    place = to.emit("iota", shape, axis)
    return to.emit("eq", place, to.cast(index, type_of(place).dtype))


@rule("gather.default")
def _gather(to: Legalizer, x: Node, axis: int, index: Node, **_: Value) -> Value:
    shape, places = type_of(x).shape, type_of(index).shape
    axis = axis_of(axis, len(shape))
    expected = tuple(1 if i == axis else extent for i, extent in enumerate(shape))
    if places != expected:
        raise NotImplementedError(f"gather of {places} from {shape}")
    _bind(index, shape[axis])
    zero = 0.0 if type_of(x).dtype.is_float else 0
    return to.emit("sum", to.emit("where", _hits(to, index, axis, shape), x, zero), (axis,), True)


@rule("scatter.value", "scatter.src")
def _scatter(to: Legalizer, x: Node, axis: int, index: Node, value: Value) -> Value:
    shape, places = type_of(x).shape, type_of(index).shape
    axis = axis_of(axis, len(shape))
    expected = tuple(1 if i == axis else extent for i, extent in enumerate(shape))
    if places != expected:
        raise NotImplementedError(f"scatter of {places} into {shape}")
    _bind(index, shape[axis])
    return to.emit("where", _hits(to, index, axis, shape), value, x)
