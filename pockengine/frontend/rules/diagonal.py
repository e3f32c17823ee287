"""ATen ops of diagonals, strided writes and the gradients of padding by copies."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer, Value, axis_of, rule
from pockengine.ir.graph import type_of


def _zero(x: Node) -> float | int:
    return 0.0 if type_of(x).dtype.is_float else 0


def _with_last(shape: tuple[int, ...], first: int, second: int) -> tuple[int, ...]:
    """The permutation that brings two axes to the end."""
    rest = [axis for axis in range(len(shape)) if axis not in (first, second)]
    return (*rest, first, second)


def _inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(order.index(axis) for axis in range(len(order)))


@rule("diagonal.default")
def _diagonal(to: Legalizer, x: Node, offset: int = 0, first: int = 0, second: int = 1) -> Value:
    """Every (columns + 1)-th element of the matrix in a row."""
    shape = type_of(x).shape
    order = _with_last(shape, axis_of(first, len(shape)), axis_of(second, len(shape)))
    *lead, rows, columns = (shape[axis] for axis in order)
    count = to.shape[-1]
    if not count:
        return to.emit("full", to.shape, _zero(x), type_of(x).dtype.value)
    flat = to.reshape(to.permute(x, order), (*lead, rows * columns))
    start = offset if offset >= 0 else -offset * columns
    stop = start + (count - 1) * (columns + 1) + 1
    return to.emit("slice", flat, len(lead), start, stop, columns + 1)


def _on_diagonal(to: Legalizer, rows: int, columns: int, offset: int) -> Node:
    """Where column - row is the offset: (rows, columns)."""
    column = to.emit("iota", (1, columns), 1)
    row = to.emit("iota", (rows, 1), 0)
    return to.emit("eq", to.emit("sub", column, row), offset)


@rule("diagonal_scatter.default")
def _diagonal_scatter(
    to: Legalizer, x: Node, part: Node, offset: int = 0, first: int = 0, second: int = 1
) -> Value:
    shape = type_of(x).shape
    order = _with_last(shape, axis_of(first, len(shape)), axis_of(second, len(shape)))
    matrix = to.permute(x, order)
    *lead, rows, columns = type_of(matrix).shape
    count = type_of(part).shape[-1]
    low = max(offset, 0)
    spread = to.reshape(to.cast(part, type_of(x).dtype), (*lead, 1, count))
    widths = ((0,) * (len(lead) + 1) + (low,), (0,) * (len(lead) + 1) + (columns - low - count,))
    wide = to.emit("pad", spread, *widths, _zero(x)) if columns != count else spread
    mask = _on_diagonal(to, rows, columns, offset)
    return to.permute(to.emit("where", mask, wide, matrix), _inverse(order))


@rule("replication_pad1d_backward.default", "replication_pad2d_backward.default")
@rule("replication_pad3d_backward.default")
def _replication_backward(to: Legalizer, grad: Node, x: Node, widths: Sequence[int]) -> Value:
    """What was copied from an edge adds to it."""
    if min(widths) < 0:
        raise NotImplementedError("replicating padding that crops")
    rank = len(type_of(x).shape)
    for place in range(len(widths) // 2):
        low, high = widths[2 * place : 2 * place + 2]
        grad = _folded(to, grad, rank - 1 - place, low, high)
    return grad


def _folded(to: Legalizer, grad: Node, axis: int, low: int, high: int) -> Node:
    shape = type_of(grad).shape
    extent = shape[axis] - low - high
    inner = to.emit("slice", grad, axis, low, low + extent)
    for start, size, place in ((0, low, 0), (low + extent, high, extent - 1)):
        if size:
            edge = to.emit("slice", grad, axis, start, start + size)
            total = to.emit("sum", edge, (axis,), True)
            before = tuple(place if i == axis else 0 for i in range(len(shape)))
            after = tuple(extent - 1 - place if i == axis else 0 for i in range(len(shape)))
            wide = to.emit("pad", total, before, after, 0.0) if extent > 1 else total
            inner = to.emit("add", inner, wide)
    return inner


def strided_write(
    to: Legalizer, x: Node, spread: Node, axis: int, low: int, high: int, step: int
) -> Node:
    """X with ``spread``, of x's shape, where low <= place < high and step divides place - low."""
    shape = type_of(x).shape
    assert prod(type_of(spread).shape) == prod(shape)
    line = tuple(extent if i == axis else 1 for i, extent in enumerate(shape))
    place = to.emit("sub", to.emit("iota", line, axis), low)
    hit = to.emit("eq", to.emit("fmod", place, step), 0)
    inside = to.emit("logical_and", to.emit("ge", place, 0), to.emit("lt", place, high - low))
    return to.emit("where", to.emit("logical_and", hit, inside), spread, x)
