"""Rules of views, moves and reductions."""

from __future__ import annotations

from functools import partial
from math import prod

from torch.fx import Node

from pockengine.ir.graph import Argument, infer, op_name, type_of
from pockengine.ir.ops import OPS
from pockengine.ir.types import DType
from pockengine.passes.rewriter import aligned
from pockengine.passes.simplify_rules.table import (
    RULES,
    Emitter,
    arguments,
    is_call,
    is_float,
    operand,
    rule,
)


def _of_full(op: str, to: Emitter, x: Node, *how: Argument) -> Node | None:
    """``view(full(c)) -> full(c)``."""
    if not is_call(x, "full"):
        return None
    return to.emit("full", infer(OPS[op], (x, *how), {}).shape, *arguments(x)[1:])


for _op in ("reshape", "expand", "permute", "slice"):
    RULES[_op].append(partial(_of_full, _op))


@rule("reshape")
def _reshape(to: Emitter, x: Node, shape: tuple[int, ...]) -> Node | None:
    """``reshape(x) -> x`` of its own shape; ``reshape(reshape(x)) -> reshape(x)``."""
    if type_of(x).shape == shape:
        return x
    return to.emit("reshape", operand(x), shape) if is_call(x, "reshape") else None


@rule("reshape")
def _without_kept(to: Emitter, x: Node, shape: tuple[int, ...]) -> Node | None:
    """``reshape(sum(x, keepdims)) -> sum(x)``, where it only drops the kept axes."""
    if not is_call(x, "sum", "amax", "amin") or not to.is_read_once(x):
        return None
    source, axes, *keep = arguments(x)
    fits = keep == [True] and _reduced(type_of(source).shape, axes, False) == shape
    return to.emit(op_name(x), source, axes, False) if fits else None


@rule("permute")
def _permute(to: Emitter, x: Node, order: tuple[int, ...]) -> Node | None:
    """``permute(x) -> x`` if nothing moves, ``reshape(x)`` if only ones do; two become one."""
    if order == tuple(range(len(order))):
        return x
    if is_call(x, "permute"):
        return to.emit("permute", operand(x), tuple(arguments(x)[1][axis] for axis in order))
    shape = type_of(x).shape
    moved = [axis for axis in order if shape[axis] != 1]
    return to.reshape(x, tuple(shape[a] for a in order)) if moved == sorted(moved) else None


@rule("expand")
def _expand(to: Emitter, x: Node, shape: tuple[int, ...]) -> Node | None:
    """``expand(x) -> x`` of its own shape; ``expand(expand(x)) -> expand(x)``."""
    if type_of(x).shape == shape:
        return x
    return to.expand(operand(x), shape) if is_call(x, "expand") else None


@rule("slice")
def _slice(to: Emitter, x: Node, axis: int, start: int, stop: int, step: int = 1) -> Node | None:
    """``x[:] -> x``; ``x[a:b][c:d] -> x[a + c : a + d]``."""
    if (start, stop, step) == (0, type_of(x).shape[axis], 1):
        return x
    if not is_call(x, "slice") or step != 1:
        return None
    source, outer_axis, base, _, *outer_step = arguments(x)
    if outer_axis != axis or outer_step not in ([], [1]):
        return None
    return to.emit("slice", source, axis, base + start, base + stop)


@rule("pad")
def _pad(
    to: Emitter, x: Node, low: tuple[int, ...], high: tuple[int, ...], value: float
) -> Node | None:
    """``pad(x) -> x`` by nothing."""
    del to, value
    return None if any(low + high) else x


@rule("cat")
def _cat(to: Emitter, xs: tuple[Node, ...], axis: int) -> Node | None:
    """``cat(x) -> x``."""
    del to, axis
    return xs[0] if len(xs) == 1 else None


@rule("copy")
def _copy(to: Emitter, x: Node) -> Node | None:
    """``copy(copy(x)) -> copy(x)``."""
    del to
    return x if is_call(x, "copy") else None


@rule("sum", "amax", "amin")
def _of_one(to: Emitter, x: Node, axes: tuple[int, ...], keep: bool = False) -> Node | None:
    """``sum(x) -> reshape(x)`` over axes of extent one."""
    shape = type_of(x).shape
    exact = is_float(x) or type_of(x).dtype is DType.I64  # the dtypes that a sum keeps
    if not exact or any(shape[axis] != 1 for axis in axes):
        return None
    return to.reshape(x, _reduced(shape, axes, keep))


def _reduced(shape: tuple[int, ...], axes: tuple[int, ...], keep: bool) -> tuple[int, ...]:
    return tuple(
        1 if axis in axes else extent
        for axis, extent in enumerate(shape)
        if keep or axis not in axes
    )


@rule("sum")
def _sum_of_expand(to: Emitter, x: Node, axes: tuple[int, ...], keep: bool = False) -> Node | None:
    """``sum(expand(x)) -> sum(x) * count``, where the expanded axes are summed."""
    if not is_call(x, "expand") or not is_float(x):
        return None
    source = operand(x)
    thin, wide = aligned(type_of(source).shape, len(type_of(x).shape)), type_of(x).shape
    count = prod(wide[axis] for axis in axes if thin[axis] == 1)
    if count == 1:
        return None
    total = to.emit("sum", to.reshape(source, thin), axes, keep)
    return to.expand(to.emit("mul", total, float(count)), _reduced(wide, axes, keep))


@rule("sum")
def _sum_of_sum(to: Emitter, x: Node, axes: tuple[int, ...], keep: bool = False) -> Node | None:
    """``sum(sum(x)) -> sum(x)`` over the axes of both."""
    if not (is_call(x, "sum") and to.is_read_once(x) and is_float(x)):
        return None
    source, inner, kept = operand(x), arguments(x)[1], arguments(x)[2:] == (True,)
    left = [axis for axis in range(len(type_of(source).shape)) if kept or axis not in inner]
    union = tuple(sorted({*inner, *(left[axis] for axis in axes)}))
    total = to.emit("sum", source, union, keep and kept)
    return to.reshape(total, _reduced(type_of(x).shape, axes, keep))
