"""ATen ops whose places are data."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer, Value, axis_of, rule
from pockengine.ir.graph import Bounds, is_op, role_of, set_bounds, type_of
from pockengine.ir.types import DType, Role


def _bind(index: Node, extent: int) -> bool:
    """State the permitted values of the input that an index comes from, if it comes from one.

    A label is read as ``where(label != ignore, label, 0)``, through shape changes.
    """
    ignore = None
    node: object = index
    while isinstance(node, Node):
        if role_of(node) in (Role.INPUT, Role.TARGET):
            set_bounds(node, Bounds(0, extent, ignore))
            return True
        if is_op(node, "where") and is_op(node.args[0], "ne"):
            assert isinstance(node.args[0], Node)
            ignore = cast("int", node.args[0].args[1])
            node = node.args[1]
        elif is_op(node, "reshape", "expand", "permute", "slice", "cast"):
            node = node.args[0]
        else:
            break
    return False


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
    return _add_rows(to, grad, index, count)


def _add_rows(to: Legalizer, rows: Node, index: Node, count: int) -> Node:
    """Rows summed into a table of ``count`` rows, at the places of an index."""
    return to.emit("sum_rows", rows, to.emit("invert_index", index, count))


@rule("index_select.default")
def _index_select(to: Legalizer, x: Node, axis: int, index: Node) -> Value:
    return _take(to, x, axis_of(axis, len(type_of(x).shape)), index)


@rule("index.Tensor")
def _index(to: Legalizer, x: Node, indices: Sequence[Node | None]) -> Value:
    return _take(to, *_one_index(to, x, indices))


@rule("index_put.default")
def _index_put(
    to: Legalizer, x: Node, indices: Sequence[Node | None], rows: Node, accumulate: bool = False
) -> Value:
    if not accumulate:
        raise NotImplementedError("writing at places that are data, other than by adding")
    flat, axis, index = _one_index(to, x, indices)
    shape, rank = type_of(flat).shape, len(type_of(index).shape)
    whole = to.expand(rows, (*shape[:axis], *type_of(index).shape, *shape[axis + 1 :]))
    places = range(axis, axis + rank)
    first = (*places, *(i for i in range(len(type_of(whole).shape)) if i not in places))
    rest = (*shape[:axis], *shape[axis + 1 :])
    rows = to.reshape(to.permute(whole, first), (*type_of(index).shape, prod(rest)))
    table = to.reshape(_add_rows(to, rows, index, shape[axis]), (shape[axis], *rest))
    total = to.reshape(to.permute(table, _inserted(0, axis, len(shape))), type_of(x).shape)
    return total if is_op(x, "full") and x.args[1] == 0 else to.emit("add", x, total)


def _one_index(to: Legalizer, x: Node, indices: Sequence[Node | None]) -> tuple[Node, int, Node]:
    """Make the indexed axes of x one: x, that axis, and its index (several become one number).

    Raises:
        NotImplementedError: masks as indices (a result of unknown size), or indices of axes apart.
    """
    axes = [axis for axis, index in enumerate(indices) if index is not None]
    given = [index for index in indices if index is not None]
    if any(type_of(index).dtype is DType.BOOL for index in given):
        raise NotImplementedError("indexing by a mask")
    if axes != list(range(axes[0], axes[0] + len(axes))):
        raise NotImplementedError("indexing by tensors with a slice between them")
    shape, first = type_of(x).shape, axes[0]
    number = _counted(to, given[0], shape[first])
    for axis, index in zip(axes[1:], given[1:], strict=True):
        scaled = to.emit("mul", number, shape[axis])
        number = to.emit("add", scaled, _counted(to, index, shape[axis]))
    joined = prod(shape[first : axes[-1] + 1])
    return to.reshape(x, (*shape[:first], joined, *shape[axes[-1] + 1 :])), first, number


def _counted(to: Legalizer, index: Node, extent: int) -> Node:
    """An index as a number from 0: inputs are checked at run time, others may be negative."""
    if _bind(index, extent):
        return index
    return to.emit("where", to.emit("lt", index, 0), to.emit("add", index, extent), index)


def _take(to: Legalizer, x: Node, axis: int, index: Node) -> Node:
    """The elements of x at places along an axis; the index's axes stand where that axis was."""
    _bind(index, type_of(x).shape[axis])
    shape, rank = type_of(x).shape, len(type_of(index).shape)
    rest = (*shape[:axis], *shape[axis + 1 :])
    table = to.permute(x, _inserted(axis, 0, len(shape)))
    rows = to.emit("take_rows", to.reshape(table, (shape[axis], prod(rest))), index)
    full = to.reshape(rows, (*type_of(index).shape, *rest))
    places = range(rank)
    after = range(rank, rank + len(rest))
    return to.permute(full, (*after[:axis], *places, *after[axis:]))


def _inserted(source: int, target: int, rank: int) -> tuple[int, ...]:
    """The permutation that moves one axis to another place."""
    order = [axis for axis in range(rank) if axis != source]
    order.insert(target, source)
    return tuple(order)


def _hits(to: Legalizer, index: Node, axis: int, shape: tuple[int, ...]) -> Node:
    """Where a position along the axis is the one an index of extent 1 there names."""
    place = to.emit("iota", shape, axis)
    return to.emit("eq", place, to.cast(index, type_of(place).dtype))


@rule("gather.default")
def _gather(to: Legalizer, x: Node, axis: int, index: Node, **_: Value) -> Value:
    shape, places = type_of(x).shape, type_of(index).shape
    if len(shape) == 1:
        return _take(to, x, 0, index)
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
