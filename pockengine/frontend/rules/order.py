"""ATen ops that order or accumulate along an axis."""

from __future__ import annotations

import torch
from torch.fx import Node

from pockengine.frontend.rules.elementwise import promoted
from pockengine.frontend.rules.places import numbered, take
from pockengine.frontend.rules.reduce import with_place
from pockengine.frontend.rules.table import Legalizer, Value, axis_of, rule
from pockengine.ir.graph import type_of


def _along(to: Legalizer, x: Node, axis: int, places: Node) -> Node:
    """The elements of x at places along an axis."""
    shape, out = type_of(x).shape, type_of(places).shape
    coordinates: list[Node | int] = list(range(len(shape)))
    coordinates[axis] = places
    return take(to, x, numbered(to, out, shape, coordinates), len(shape))


def _sorted(
    to: Legalizer, x: Node, axis: int, count: int | None, *, descending: bool
) -> tuple[Node, Node]:
    """The first ``count`` elements in their order, and their places."""
    shape = type_of(x).shape
    if not shape:
        return x, to.emit("full", (), 0, "i64")
    axis = axis_of(axis, len(shape))
    if count == 1 and descending:  # amin would find NaN, which is the largest here
        return with_place(to, "amax", x, axis, keep=True)
    places = to.emit("sort_places", x, axis, descending)
    if count is not None and count < shape[axis]:
        places = to.emit("slice", places, axis, 0, count)
    return _along(to, x, axis, places), places


@rule("sort.default")
def _sort(to: Legalizer, x: Node, axis: int = -1, descending: bool = False) -> Value:
    return _sorted(to, x, axis, None, descending=descending)


@rule("sort.stable")
def _sort_stable(
    to: Legalizer, x: Node, *, stable: Value = None, dim: int = -1, descending: bool = False
) -> Value:
    del stable  # always
    return _sorted(to, x, dim, None, descending=descending)


@rule("topk.default")
def _topk(
    to: Legalizer, x: Node, k: int, axis: int = -1, largest: bool = True, in_order: bool = True
) -> Value:
    del in_order  # always
    return _sorted(to, x, axis, k, descending=largest)


@rule("kthvalue.default")
def _kthvalue(to: Legalizer, x: Node, k: int, axis: int = -1, keep: bool = False) -> Value:
    del keep  # the result's shape says it
    return _nth(to, x, axis, k - 1)


@rule("median.dim")
def _median(to: Legalizer, x: Node, axis: int, keep: bool = False) -> Value:
    del keep  # the result's shape says it
    shape = type_of(x).shape
    if not shape:
        return _nth(to, x, axis, 0)
    axis = axis_of(axis, len(shape))
    middle = _nth(to, x, axis, (shape[axis] - 1) // 2)
    if not type_of(x).dtype.is_float:
        return middle
    largest = [to.reshape(v, to.shape) for v in with_place(to, "amax", x, axis, keep=True)]
    nan = to.emit("ne", largest[0], largest[0])
    pairs = zip(largest, middle, strict=True)
    return tuple(to.emit("where", nan, top, each) for top, each in pairs)


@rule("median.default")
def _median_of_all(to: Legalizer, x: Node) -> Value:
    count = type_of(x).size
    if not count:
        value = torch.empty(0, dtype=to.dtype.torch).median().item()
        return to.emit("full", (), value, to.dtype.value)
    values, _ = _sorted(to, to.reshape(x, (count,)), 0, None, descending=False)
    place = (count - 1) // 2
    middle = to.reshape(to.emit("slice", values, 0, place, place + 1), ())
    last = to.reshape(to.emit("slice", values, 0, count - 1, count), ())  # NaN is the largest
    return to.emit("where", to.emit("ne", last, last), last, middle)


def _nth(to: Legalizer, x: Node, axis: int, place: int) -> Value:
    values, places = _sorted(to, x, axis, None, descending=False)
    if not type_of(x).shape:
        return values, places
    axis = axis_of(axis, len(type_of(x).shape))
    found = (to.emit("slice", each, axis, place, place + 1) for each in (values, places))
    return tuple(to.reshape(each, to.shape) for each in found)


@rule("cumsum.default")
def _cumsum(to: Legalizer, x: Node, axis: int, **_: Value) -> Value:
    return _scan(to, "cumsum", x, axis)


@rule("cumprod.default")
def _cumprod(to: Legalizer, x: Node, axis: int, **_: Value) -> Value:
    return _scan(to, "cumprod", x, axis)


def _scan(to: Legalizer, op: str, x: Node, axis: int) -> Value:
    x = to.cast(x, to.dtype)
    if not type_of(x).shape:
        return x
    return to.emit(op, x, axis_of(axis, len(type_of(x).shape)))


@rule("bucketize.Tensor")
def _bucketize(
    to: Legalizer, x: Node, boundaries: Node, *, out_int32: bool = False, right: bool = False
) -> Value:
    del out_int32
    return _insertion_places(to, boundaries, x, right=right)


@rule("searchsorted.Tensor")
def _searchsorted(
    to: Legalizer, boundaries: Node, x: Node, *, right: bool = False, **how: Value
) -> Value:
    if how.get("sorter") is not None or how.get("side") not in (None, "left", "right"):
        raise NotImplementedError("searchsorted with a sorter")
    return _insertion_places(to, boundaries, x, right=right or how.get("side") == "right")


def _insertion_places(to: Legalizer, boundaries: Node, x: Node, *, right: bool) -> Node:
    """How many boundaries (..., n) lie below each element of x, or not above it."""
    dtype = promoted(boundaries, x)
    *lead, count = type_of(boundaries).shape
    line = to.reshape(to.cast(boundaries, dtype), (*lead, *(1,) * bool(lead), count))
    column = to.reshape(to.cast(x, dtype), (*type_of(x).shape, 1))
    below = to.cast(to.emit("le" if right else "lt", line, column), to.dtype)
    return to.emit("sum", below, (len(type_of(below).shape) - 1,))
