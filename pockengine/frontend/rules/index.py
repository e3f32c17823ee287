"""ATen ops that index by tensors: embeddings, advanced indexing, flips."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch.fx import Node

from pockengine.frontend.rules.places import (
    checked,
    numbered,
    reduce_rows,
    sum_into,
    take,
    write_into,
)
from pockengine.frontend.rules.table import Legalizer, Value, axis_of, rule
from pockengine.ir.graph import is_op, type_of
from pockengine.ir.types import DType


@rule("embedding.default")
def _embedding(to: Legalizer, table: Node, index: Node, *_: Value, **__: Value) -> Value:
    return to.emit("take_rows", table, checked(to, index, type_of(table).shape[0]))


@rule("embedding_dense_backward.default")
def _embedding_backward(
    to: Legalizer, grad: Node, index: Node, count: int, padding: int, by_frequency: bool
) -> Value:
    number = checked(to, index, count)
    column = (*type_of(index).shape, 1)
    if by_frequency:
        uses = reduce_rows(to, "sum_rows", to.emit("full", column, 1.0, "f32"), number, count)
        grad = to.emit("div", grad, to.emit("take_rows", uses, number))
    if padding >= 0:
        keep = to.reshape(to.emit("ne", number, padding), column)
        grad = to.emit("where", keep, grad, 0.0)
    return reduce_rows(to, "sum_rows", grad, number, count)


@rule("index_select.default")
def _index_select(to: Legalizer, x: Node, axis: int, index: Node) -> Value:
    shape = type_of(x).shape
    if not shape:
        return x
    axis = axis_of(axis, len(shape))
    number = checked(to, index, shape[axis])
    flat = to.reshape(number, (type_of(index).size,))
    return to.reshape(_taken(to, x, [*[None] * axis, flat]), to.shape)


@rule("index.Tensor", "_unsafe_index.Tensor")
def _index(to: Legalizer, x: Node, indices: Sequence[Node | None]) -> Value:
    return to.reshape(_taken(to, x, _checked(to, x, indices)), to.shape)


@rule("index_put.default", "_unsafe_index_put.default")
def _index_put(
    to: Legalizer, x: Node, indices: Sequence[Node | None], rows: Node, accumulate: bool = False
) -> Value:
    shape = type_of(x).shape
    rows = to.cast(rows, type_of(x).dtype)
    if any(index is not None and type_of(index).dtype is DType.BOOL for index in indices):
        return _put_mask(to, x, indices, rows, accumulate=accumulate)
    number, axes = _numbers(to, shape, _checked(to, x, indices))
    whole = to.expand(rows, (*type_of(number).shape, *shape[axes:]))
    if not accumulate:
        return write_into(to, x, whole, number, axes)
    total = sum_into(to, whole, number, shape, axes)
    return total if is_op(x, "full") and x.args[1] == 0 else to.emit("add", x, total)


def _put_mask(
    to: Legalizer, x: Node, indices: Sequence[Node | None], value: Node, *, accumulate: bool
) -> Node:
    """One value where a mask over the leading axes holds."""
    shape, given = type_of(x).shape, [index for index in indices if index is not None]
    if len(given) > 1 or indices[0] is None or type_of(value).size != 1:
        raise NotImplementedError("writing several values by a mask")
    rank = len(type_of(given[0]).shape)
    mask = to.reshape(given[0], (*shape[:rank], *(1,) * (len(shape) - rank)))
    value = to.reshape(value, ())
    return to.emit("where", mask, to.emit("add", x, value) if accumulate else value, x)


def _checked(to: Legalizer, x: Node, indices: Sequence[Node | None]) -> list[Node | None]:
    """Indices as numbers from 0.

    Raises:
        NotImplementedError: masks as indices: a result of unknown size.
    """
    if any(index is not None and type_of(index).dtype is DType.BOOL for index in indices):
        raise NotImplementedError("indexing by a mask")
    return [
        index if index is None else checked(to, index, extent, wraps=True)
        for index, extent in zip(indices, type_of(x).shape, strict=False)
    ]


def _taken(to: Legalizer, x: Node, indices: Sequence[Node | None]) -> Node:
    """The elements of x at numbers along some of its axes."""
    number, axes = _numbers(to, type_of(x).shape, indices)
    return take(to, x, number, axes)


def _numbers(
    to: Legalizer, shape: tuple[int, ...], indices: Sequence[Node | None]
) -> tuple[Node, int]:
    """Numbers in the axes up to the last indexed one, and how many axes that are.

    The indices broadcast; their axes stand where the indexed ones were, or in front if other axes
    lie between those.
    """
    given = {axis: index for axis, index in enumerate(indices) if index is not None}
    axes = max(given) + 1
    others = [axis for axis in range(axes) if axis not in given]
    shapes = (type_of(index).shape for index in given.values())
    common = tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]
    in_front = bool(others) and others[-1] > min(given)
    lead = tuple(shape[axis] for axis in others)
    out = (*common, *lead) if in_front else (*lead, *common)
    first = len(common) if in_front else 0
    behind = len(lead) if in_front else 0
    coordinates: list[Node | int] = []
    for axis in range(axes):
        if axis in given:
            own = type_of(given[axis]).shape
            coordinates.append(to.reshape(given[axis], (*own, *(1,) * behind)))
        else:
            coordinates.append(first + others.index(axis))
    return numbered(to, out, shape[:axes], coordinates), axes


@rule("put.default")
def _put(to: Legalizer, x: Node, index: Node, values: Node, accumulate: bool = False) -> Value:
    shape, count = type_of(x).shape, type_of(x).size
    flat = to.reshape(x, (count,))
    places = to.reshape(index, (type_of(index).size,))
    number = checked(to, places, count, wraps=True)
    rows = to.reshape(values, (type_of(index).size,))
    if accumulate:
        total = to.emit("add", flat, sum_into(to, rows, number, (count,), 1))
    else:
        total = write_into(to, flat, rows, number, 1)
    return to.reshape(total, shape)


@rule("unfold.default")
def _unfold(to: Legalizer, x: Node, axis: int, size: int, step: int) -> Value:
    shape = type_of(x).shape
    if not shape:
        return to.reshape(x, (size,))
    axis = axis_of(axis, len(shape))
    count = to.shape[axis]
    windows = to.emit("mul", to.emit("iota", (count, 1), 0), step)
    places = to.emit("add", windows, to.emit("iota", (1, size), 1))
    taken = _taken(to, x, [*[None] * axis, places])
    rest = range(axis + 2, len(shape) + 1)
    return to.permute(taken, (*range(axis + 1), *rest, axis + 1))


@rule("flip.default")
def _flip(to: Legalizer, x: Node, axes: Sequence[int]) -> Value:
    shape = type_of(x).shape
    if not shape or not prod(shape):
        return x
    turned = sorted({axis_of(axis, len(shape)) for axis in axes if shape[axis] > 1})
    if not turned:
        return x
    count = turned[-1] + 1
    out = shape[:count]
    coordinates: list[Node | int] = list(range(count))
    for axis in turned:
        line = tuple(extent if i == axis else 1 for i, extent in enumerate(out))
        coordinates[axis] = to.emit("sub", shape[axis] - 1, to.emit("iota", line, axis))
    return take(to, x, numbered(to, out, out, coordinates), count)
