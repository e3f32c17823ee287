"""Integers as places: what inputs may hold, and the number of an element in a flat tensor."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer
from pockengine.ir.access import access
from pockengine.ir.graph import Bounds, is_op, role_of, set_bounds, type_of
from pockengine.ir.types import DType, Role

_INTEGERS = (DType.I64, DType.I32, DType.I8, DType.U8)


def bind(to: Legalizer, index: Node, low: int, high: int) -> bool:
    """State low <= value < high of the integer input that an index comes from, if it is one.

    A label is read as ``where(label != ignore, label, 0)``, through shape changes; sums with a
    number shift the bounds. What is said of a part of an input waits for ``bind_parts``.

    Returns:
        Whether the whole input is checked at run time.
    """
    ignore = None
    part: Node | None = None
    node: object = index
    while isinstance(node, Node):
        if role_of(node) in (Role.INPUT, Role.TARGET):
            bounds = Bounds(low, high, ignore)
            if type_of(node).dtype not in _INTEGERS:
                return False
            if part is not None:
                to.parts.setdefault(node, []).append((part, bounds))
                return False
            set_bounds(node, bounds)
            return True
        if is_op(node, "where") and is_op(node.args[0], "ne"):
            assert isinstance(node.args[0], Node)
            ignore = cast("int", node.args[0].args[1])
            node = node.args[1]
        elif is_op(node, "add", "sub") and type(node.args[1]) is int and ignore is None:
            shift = node.args[1] if is_op(node, "add") else -node.args[1]
            low, high, node = low - shift, high - shift, node.args[0]
        elif is_op(node, "slice") and not _repeats(node):
            part, node = node, node.args[0]
        elif is_op(node, "reshape", "expand", "permute", "slice", "cast"):
            node = node.args[0]
        else:
            break
    return False


def bind_parts(to: Legalizer) -> None:
    """State bounds of the inputs of which only slices are read, all within the same bounds.

    Those are columns of one kind, such as the steps of a sequence; others (a user's number beside
    an item's) have no bounds in common.
    """
    for node, parts in to.parts.items():
        read = {part for part, _ in parts}
        bounds = {each for _, each in parts}
        if len(bounds) == 1 and read.issuperset(node.users):
            set_bounds(node, bounds.pop())


def _repeats(part: Node) -> bool:
    """Whether a slice leaves out nothing but copies of what it keeps."""
    source, axis = cast("tuple[Node, int]", part.args[:2])
    found = access(source)
    return found is not None and found.strides[axis] == 0


def checked(to: Legalizer, index: Node, extent: int, *, wraps: bool = False) -> Node:
    """An index as a number of 0 .. extent.

    An input is checked at run time; what is computed from data, or a part of an input, is kept
    inside, for a kernel must not read outside of its operands.

    Args:
        to: where it is written.
        index: integers.
        extent: how many places there are.
        wraps: whether -1 is the last place.
    """
    is_input = bind(to, index, -extent if wraps else 0, extent)
    number: Node = to.cast(index, DType.I64)
    if wraps:
        behind = to.emit("add", number, extent)
        number = to.emit("where", to.emit("lt", number, 0), behind, number)
    if is_input or _is_inside(index, extent):
        return number
    return to.emit("minimum", to.emit("maximum", number, 0), max(extent - 1, 0))


def _is_inside(index: Node, extent: int) -> bool:
    """Whether an index is a number, or a line of numbers, that is known to be a place."""
    while is_op(index, "reshape", "expand", "permute", "slice", "cast"):
        source = index.args[0]
        assert isinstance(source, Node)
        index = source
    if is_op(index, "full"):
        value = cast("float", index.args[1])
        return 0 <= value < extent
    if is_op(index, "iota"):
        axis = cast("int", index.args[1])
        return type_of(index).shape[axis] <= extent
    return False


def numbered(
    to: Legalizer,
    shape: tuple[int, ...],
    extents: Sequence[int],
    coordinates: Sequence[Node | int],
) -> Node:
    """Row-major numbers in a space of ``extents``, as a tensor of ``shape``.

    Args:
        to: where they are written.
        shape: of the result.
        extents: of the space.
        coordinates: one an axis of the space: a tensor that broadcasts to the shape, or the axis of
            the result that runs along it.
    """
    total: Node | None = None
    for axis, coordinate in enumerate(coordinates):
        term = (
            coordinate
            if isinstance(coordinate, Node)
            else to.emit("iota", _line(shape, coordinate), coordinate)
        )
        step = prod(extents[axis + 1 :])
        scaled = term if step == 1 else to.emit("mul", term, step)
        total = scaled if total is None else to.emit("add", total, scaled)
    assert total is not None
    return to.expand(total, shape)


def _line(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    """A shape that is 1 in all axes but one."""
    return tuple(extent if i == axis else 1 for i, extent in enumerate(shape))


def table_of(to: Legalizer, x: Node, axes: int) -> Node:
    """X with its first axes as one and the others as another."""
    shape = type_of(x).shape
    return to.reshape(x, (prod(shape[:axes]), prod(shape[axes:])))


def take(to: Legalizer, x: Node, number: Node, axes: int) -> Node:
    """Elements of x at numbers in its first ``axes`` axes: number.shape + x.shape[axes:]."""
    rows = to.emit("take_rows", table_of(to, x, axes), number)
    return to.reshape(rows, (*type_of(number).shape, *type_of(x).shape[axes:]))


def reduce_rows(to: Legalizer, op: str, rows: Node, number: Node, count: int) -> Node:
    """Rows reduced into a table of ``count`` rows, at the places of an index."""
    return to.emit(op, rows, to.emit("invert_index", number, count))


def sum_into(to: Legalizer, rows: Node, number: Node, shape: tuple[int, ...], axes: int) -> Node:
    """Zeros of a shape, with rows added at numbers in its first ``axes`` axes."""
    return _into(to, "sum_rows", rows, number, shape, axes)


def max_into(to: Legalizer, rows: Node, number: Node, shape: tuple[int, ...], axes: int) -> Node:
    """The least value in a shape, and the largest of the rows at numbers in its first axes."""
    return _into(to, "max_rows", rows, number, shape, axes)


def _into(
    to: Legalizer, op: str, rows: Node, number: Node, shape: tuple[int, ...], axes: int
) -> Node:
    flat = to.reshape(rows, (*type_of(number).shape, prod(shape[axes:])))
    return to.reshape(reduce_rows(to, op, flat, number, prod(shape[:axes])), shape)


def write_into(to: Legalizer, x: Node, rows: Node | float, number: Node, axes: int) -> Node:
    """X with rows written at numbers in its first ``axes`` axes; of equal ones the last counts."""
    shape, count = type_of(x).shape, type_of(number).size
    if not count or not type_of(x).size:
        return x
    places = to.emit("last_places", number, prod(shape[:axes]))
    column = to.reshape(places, (prod(shape[:axes]), 1))
    written = to.emit("ge", column, 0)
    table = table_of(to, x, axes)
    value: Node | float = rows
    if isinstance(rows, Node):
        flat = to.reshape(rows, (count, prod(shape[axes:])))
        value = to.emit("take_rows", flat, to.emit("maximum", places, 0))
    return to.reshape(to.emit("where", written, value, table), shape)
