"""ATen ops that read or write one element an index along an axis: gather and scatter."""

from __future__ import annotations

from torch.fx import Node

from pockengine.frontend.rules.places import (
    checked,
    max_into,
    numbered,
    sum_into,
    take,
    write_into,
)
from pockengine.frontend.rules.table import Legalizer, Value, axis_of, rule
from pockengine.ir.access import access
from pockengine.ir.graph import is_op, type_of


class _Places:
    """The elements of x that an index names along an axis.

    Where the index is the same along x's whole last axes, these are rows that move as one.

    Args:
        to: where numbers are written.
        x: what is indexed.
        axis: the axis.
        index: of x's rank.
    """

    def __init__(self, to: Legalizer, x: Node, axis: int, index: Node) -> None:
        self.to, self.x = to, x
        self.shape = type_of(x).shape or (1,)
        self.places = type_of(index).shape or (1,)
        self.axis = axis_of(axis, len(self.shape))
        index = to.reshape(index, self.places)
        found = access(index)
        axes = len(self.shape)
        while (
            found is not None
            and axes - 1 > self.axis
            and self.places[axes - 1] == self.shape[axes - 1]
            and (found.strides[axes - 1] == 0 or self.places[axes - 1] == 1)
        ):
            axes -= 1
        self.axes = axes
        for along in range(axes, len(self.shape)):
            if self.places[along] > 1:
                index = to.emit("slice", index, along, 0, 1)
        self.index = to.reshape(index, self.places[:axes])

    @property
    def is_one_hot(self) -> bool:
        """Whether each line along the axis has one place, and all lines do, element by element."""
        ones = tuple(1 if i == self.axis else e for i, e in enumerate(self.shape))
        return self.places == ones and self.axes == len(self.shape) and len(self.shape) > 1

    def hits(self) -> Node:
        """Where a position along the axis is the one that an index of extent 1 there names."""
        checked_index = checked(self.to, self.index, self.shape[self.axis])
        return self.to.emit("eq", self.to.emit("iota", self.shape, self.axis), checked_index)

    def numbers(self) -> Node:
        """Numbers of the elements (or rows) in the leading axes of x."""
        out = self.places[: self.axes]
        coordinates: list[Node | int] = list(range(self.axes))
        coordinates[self.axis] = checked(self.to, self.index, self.shape[self.axis])
        return numbered(self.to, out, self.shape[: self.axes], coordinates)

    def table(self) -> Node:
        """X with at least one axis."""
        return self.to.reshape(self.x, self.shape)

    def source(self, values: Node) -> Node:
        """The part of the values that the index has places for."""
        values = self.to.reshape(
            self.to.cast(values, type_of(self.x).dtype), type_of(values).shape or (1,)
        )
        for axis, extent in enumerate(self.places):
            if type_of(values).shape[axis] != extent:
                values = self.to.emit("slice", values, axis, 0, extent)
        return values


@rule("gather.default")
def _gather(to: Legalizer, x: Node, axis: int, index: Node, **_: Value) -> Value:
    places = _Places(to, x, axis, index)
    if places.is_one_hot:
        zero = 0.0 if type_of(x).dtype.is_float else 0
        if type_of(x).dtype.value != "bool":
            seen = to.emit("where", places.hits(), x, zero)
            return to.emit("sum", seen, (places.axis,), True)
    return to.reshape(take(to, places.table(), places.numbers(), places.axes), to.shape)


@rule("scatter.value", "scatter.src")
def _scatter(to: Legalizer, x: Node, axis: int, index: Node, value: Value) -> Value:
    places = _Places(to, x, axis, index)
    if isinstance(value, Node) and type_of(value).shape:
        value = places.source(value)
    elif isinstance(value, Node):
        value = to.cast(value, type_of(x).dtype)
    if places.is_one_hot:
        return to.emit("where", places.hits(), value, x)
    if isinstance(value, Node) and not type_of(value).shape:
        value = to.expand(value, places.places)
    written = write_into(to, places.table(), value, places.numbers(), places.axes)
    return to.reshape(written, to.shape)


@rule("scatter_add.default")
def _scatter_add(to: Legalizer, x: Node, axis: int, index: Node, values: Node) -> Value:
    places = _Places(to, x, axis, index)
    values = places.source(values)
    is_zero = is_op(x, "full") and x.args[1] == 0
    if places.is_one_hot:
        zero = 0.0 if type_of(x).dtype.is_float else 0
        total = to.emit("where", places.hits(), values, zero)
    else:
        total = sum_into(to, values, places.numbers(), places.shape, places.axes)
    return to.reshape(total if is_zero else to.emit("add", places.table(), total), to.shape)


@rule("scatter_reduce.two")
def _scatter_reduce(
    to: Legalizer,
    x: Node,
    axis: int,
    index: Node,
    values: Node,
    reduce: str,
    *,
    include_self: bool = True,
) -> Value:
    if reduce == "prod":
        raise NotImplementedError(f"scatter_reduce by {reduce}")
    places = _Places(to, x, axis, index)
    if reduce in ("amax", "amin"):
        return to.reshape(_extreme(to, places, values, reduce, include_self), to.shape)
    number, shape = places.numbers(), places.shape
    total = sum_into(to, places.source(values), number, shape, places.axes)
    ones = to.emit("full", places.places, 1.0, "f32")
    count = sum_into(to, ones, number, shape, places.axes)
    if include_self:
        total, count = to.emit("add", total, places.table()), to.emit("add", count, 1.0)
    if reduce == "mean":
        total = to.emit("div", total, to.emit("maximum", count, 1.0))
    if not include_self:
        total = to.emit("where", to.emit("gt", count, 0.0), total, places.table())
    return to.reshape(total, to.shape)


def _extreme(to: Legalizer, places: _Places, values: Node, reduce: str, include_self: bool) -> Node:
    """The largest or smallest of the values that fall on each element of x, and x if included."""
    number, shape, axes = places.numbers(), places.shape, places.axes
    source = places.source(values)
    if reduce == "amin":
        source = _turned(to, source)
    found = max_into(to, source, number, shape, axes)
    if reduce == "amin":
        found = _turned(to, found)
    if include_self:
        return to.emit("maximum" if reduce == "amax" else "minimum", found, places.table())
    ones = to.emit("full", places.places, 1.0, "f32")
    count = sum_into(to, ones, number, shape, axes)
    return to.emit("where", to.emit("gt", count, 0.0), found, places.table())


def _turned(to: Legalizer, x: Node) -> Node:
    """The same in the opposite order, the least integer too, which has no negative."""
    return to.emit("neg", x) if type_of(x).dtype.is_float else to.emit("sub", -1, x)
