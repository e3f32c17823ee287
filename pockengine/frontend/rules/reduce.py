"""ATen reductions."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer, Value, axis_of, rule
from pockengine.ir.graph import type_of
from pockengine.ir.types import DType


def _axes(x: Node, axes: Sequence[int] | int | None) -> tuple[int, ...]:
    rank = len(type_of(x).shape)
    if not rank or axes is None or (isinstance(axes, Sequence) and not axes):
        return tuple(range(rank))
    listed = [axes] if isinstance(axes, int) else axes
    return tuple(sorted(axis_of(axis, rank) for axis in listed))


@rule("sum.default", "sum.dim_IntList")
def _sum(to: Legalizer, x: Node, axes: Value = None, keep: bool = False, **_: Value) -> Value:
    return to.emit("sum", to.cast(x, to.dtype), _axes(x, axes), keep)


@rule("mean.default", "mean.dim")
def _mean(to: Legalizer, x: Node, axes: Value = None, keep: bool = False, **_: Value) -> Value:
    return mean(to, to.cast(x, to.dtype), _axes(x, axes), keep=keep)


def mean(to: Legalizer, x: Node, axes: tuple[int, ...], *, keep: bool) -> Node:
    """Mean over axes."""
    count = prod(type_of(x).shape[axis] for axis in axes)
    return to.emit("mul", to.emit("sum", x, axes, keep), 1.0 / count if count else float("nan"))


@rule("amax.default", "max.default")
def _amax(to: Legalizer, x: Node, axes: Value = None, keep: bool = False) -> Value:
    return _extremum(to, "amax", x, axes, keep=keep)


@rule("amin.default", "min.default")
def _amin(to: Legalizer, x: Node, axes: Value = None, keep: bool = False) -> Value:
    return _extremum(to, "amin", x, axes, keep=keep)


def _extremum(to: Legalizer, op: str, x: Node, axes: Value, *, keep: bool) -> Node:
    if type_of(x).dtype is not DType.BOOL:
        return to.emit(op, x, _axes(x, axes), keep)
    return to.emit("gt", to.emit(op, to.cast(x, DType.F32), _axes(x, axes), keep), 0.0)


@rule("max.dim")
def _max(to: Legalizer, x: Node, axis: int, keep: bool = False) -> Value:
    return with_place(to, "amax", x, axis, keep=keep)


@rule("min.dim")
def _min(to: Legalizer, x: Node, axis: int, keep: bool = False) -> Value:
    return with_place(to, "amin", x, axis, keep=keep)


def with_place(to: Legalizer, op: str, x: Node, axis: int, *, keep: bool) -> tuple[Node, Node]:
    """The extremum along an axis, and the first place that holds it; NaN is the extremum."""
    shape = type_of(x).shape
    if not shape:
        return x, to.emit("full", (), 0, "i64")
    if type_of(x).dtype is DType.BOOL:
        best, place = with_place(to, op, to.cast(x, DType.I64), axis, keep=keep)
        return to.cast(best, DType.BOOL), place
    over = _axes(x, axis)
    best = to.emit(op, x, over, True)
    place = to.emit("iota", shape, over[0])
    hits = to.emit("eq", x, best)
    if type_of(x).dtype.is_float:
        hits = to.emit("logical_or", hits, to.emit("ne", x, x))
    seen = to.emit("where", hits, place, shape[over[0]])
    rest = tuple(extent for i, extent in enumerate(shape) if keep or i != over[0])
    thin = tuple(1 if i == over[0] else e for i, e in enumerate(shape)) if keep else rest
    return to.reshape(best, thin), to.emit("amin", seen, over, keep)


@rule("argmax.default")
def _argmax(to: Legalizer, x: Node, axis: int | None = None, keep: bool = False) -> Value:
    return _place_of(to, "amax", x, axis, keep=keep)


@rule("argmin.default")
def _argmin(to: Legalizer, x: Node, axis: int | None = None, keep: bool = False) -> Value:
    return _place_of(to, "amin", x, axis, keep=keep)


def _place_of(to: Legalizer, op: str, x: Node, axis: int | None, *, keep: bool) -> Node:
    flat = to.reshape(x, (type_of(x).size,)) if axis is None else x
    return to.reshape(with_place(to, op, flat, axis or 0, keep=keep)[1], to.shape)


@rule("prod.default", "prod.dim_int")
def _prod(to: Legalizer, x: Node, axis: int | None = None, keep: bool = False, **_: Value) -> Value:
    return to.emit("prod", to.cast(x, to.dtype), _axes(x, axis), keep)


@rule("any.default", "any.dim", "any.dims")
def _any(to: Legalizer, x: Node, axes: Value = None, keep: bool = False) -> Value:
    if not type_of(x).size:
        return to.emit("full", to.shape, False, "bool")
    ones = to.emit("cast", to.emit("ne", x, 0), "f32")
    return to.emit("gt", to.emit("amax", ones, _axes(x, axes), keep), 0.0)


@rule("all.default", "all.dim", "all.dims")
def _all(to: Legalizer, x: Node, axes: Value = None, keep: bool = False) -> Value:
    if not type_of(x).size:
        return to.emit("full", to.shape, True, "bool")
    ones = to.emit("cast", to.emit("ne", x, 0), "f32")
    return to.emit("gt", to.emit("amin", ones, _axes(x, axes), keep), 0.0)


@rule("var_mean.correction")
def _var_mean(
    to: Legalizer, x: Node, axes: Value = None, *, correction: float = 1, keepdim: bool = False
) -> Value:
    over = _axes(x, axes)
    kept = mean(to, x, over, keep=True)
    centred = to.emit("sub", x, kept)
    total = to.emit("sum", to.emit("mul", centred, centred), over, keepdim)
    count = prod(type_of(x).shape[axis] for axis in over)
    var = to.emit(
        "mul", total, 1.0 / max(count - correction, 0) if count > correction else float("nan")
    )
    return var, to.reshape(kept, type_of(var).shape)


@rule("var.correction")
def _var(
    to: Legalizer, x: Node, axes: Value = None, *, correction: float = 1, keepdim: bool = False
) -> Value:
    return _var_mean(to, x, axes, correction=correction, keepdim=keepdim)[0]
