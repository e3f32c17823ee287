"""ATen ops that only move elements."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from pockengine.frontend.rules.diagonal import strided_write
from pockengine.frontend.rules.table import Legalizer, Value, axis_of, rule
from pockengine.ir.graph import type_of


@rule(
    "view.default",
    "reshape.default",
    "_unsafe_view.default",
    "unsqueeze.default",
    "squeeze.default",
    "squeeze.dim",
    "squeeze.dims",
    "flatten.using_ints",
)
def _reshape(to: Legalizer, x: Node, *_: Value) -> Value:
    return to.reshape(x, to.shape)


@rule("permute.default")
def _permute(to: Legalizer, x: Node, order: Sequence[int]) -> Value:
    return to.permute(x, tuple(axis_of(axis, len(order)) for axis in order))


@rule("transpose.int", "t.default")
def _transpose(to: Legalizer, x: Node, first: int = 0, second: int = 1) -> Value:
    rank = len(type_of(x).shape)
    order = list(range(rank))
    if rank > 1:
        a, b = axis_of(first, rank), axis_of(second, rank)
        order[a], order[b] = order[b], order[a]
    return to.permute(x, tuple(order))


@rule("expand.default")
def _expand(to: Legalizer, x: Node, *_: Value, **__: Value) -> Value:
    return to.expand(x, to.shape)


def _bounds(extent: int, start: int | None, stop: int | None) -> tuple[int, int]:
    low, high, _ = slice(start, stop).indices(extent)
    return low, max(low, high)


@rule("slice.Tensor")
def _slice(
    to: Legalizer,
    x: Node,
    axis: int = 0,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
) -> Value:
    shape = type_of(x).shape
    axis = axis_of(axis, len(shape))
    low, high = _bounds(shape[axis], start, stop)
    if (low, high, step) == (0, shape[axis], 1):
        return x
    return to.emit("slice", x, axis, low, high, step)


@rule("select.int")
def _select(to: Legalizer, x: Node, axis: int, index: int) -> Value:
    shape = type_of(x).shape
    axis = axis_of(axis, len(shape))
    index %= shape[axis]
    return to.reshape(to.emit("slice", x, axis, index, index + 1), to.shape)


@rule("slice_backward.default")
def _slice_backward(
    to: Legalizer, grad: Node, shape: Sequence[int], axis: int, start: int, stop: int, step: int
) -> Value:
    axis = axis_of(axis, len(shape))
    low, high = _bounds(shape[axis], start, stop)
    if step != 1:
        grad = _spread(to, grad, axis, step, high - low)
    return _embed(to, grad, axis, low, shape[axis] - high)


def _spread(to: Legalizer, x: Node, axis: int, step: int, extent: int) -> Node:
    """X with zeros between its elements along an axis, ``extent`` long."""
    shape = type_of(x).shape
    thin = to.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    wide = _embed(to, thin, axis + 1, 0, step - 1)
    flat = to.reshape(wide, (*shape[:axis], shape[axis] * step, *shape[axis + 1 :]))
    excess = shape[axis] * step - extent
    if excess > 0:
        return to.emit("slice", flat, axis, 0, extent)
    return _embed(to, flat, axis, 0, -excess)


@rule("select_backward.default")
def _select_backward(
    to: Legalizer, grad: Node, shape: Sequence[int], axis: int, index: int
) -> Value:
    axis = axis_of(axis, len(shape))
    index %= shape[axis]
    thin = tuple(1 if i == axis else extent for i, extent in enumerate(shape))
    return _embed(to, to.reshape(grad, thin), axis, index, shape[axis] - index - 1)


@rule("slice_scatter.default")
def _slice_scatter(
    to: Legalizer,
    x: Node,
    part: Node,
    axis: int = 0,
    start: int | None = None,
    stop: int | None = None,
    step: int = 1,
) -> Value:
    shape = type_of(x).shape
    axis = axis_of(axis, len(shape))
    low, high = _bounds(shape[axis], start, stop)
    if step != 1 and high > low:
        wide = _spread(to, to.cast(part, to.dtype), axis, step, high - low)
        full = _embed(to, wide, axis, low, shape[axis] - high)
        return strided_write(to, x, full, axis, low, high, step)
    return _replace(to, x, to.cast(part, to.dtype), axis, low, high)


@rule("select_scatter.default")
def _select_scatter(to: Legalizer, x: Node, part: Node, axis: int, index: int) -> Value:
    shape = type_of(x).shape
    axis = axis_of(axis, len(shape))
    index %= shape[axis]
    thin = tuple(1 if i == axis else extent for i, extent in enumerate(shape))
    row = to.reshape(to.cast(part, to.dtype), thin)
    return _replace(to, x, row, axis, index, index + 1)


def _replace(to: Legalizer, x: Node, part: Node, axis: int, low: int, high: int) -> Node:
    """X with ``part`` in the place of x[low:high]."""
    if high <= low:
        return x
    extent = type_of(x).shape[axis]
    before = [to.emit("slice", x, axis, 0, low)] if low > 0 else []
    after = [to.emit("slice", x, axis, high, extent)] if high < extent else []
    parts = [*before, part, *after]
    return parts[0] if len(parts) == 1 else to.emit("cat", parts, axis)


def _embed(to: Legalizer, x: Node, axis: int, low: int, high: int) -> Node:
    if low == high == 0:
        return x
    rank = len(type_of(x).shape)
    zero = 0.0 if type_of(x).dtype.is_float else 0
    lows = tuple(low if i == axis else 0 for i in range(rank))
    highs = tuple(high if i == axis else 0 for i in range(rank))
    return to.emit("pad", x, lows, highs, zero)


@rule("constant_pad_nd.default")
def _pad(to: Legalizer, x: Node, widths: Sequence[int], value: float = 0.0) -> Value:
    rank = len(type_of(x).shape)
    low, high = [0] * rank, [0] * rank
    for place in range(len(widths) // 2):
        axis = rank - 1 - place
        low[axis], high[axis] = widths[2 * place], widths[2 * place + 1]
    for axis, (before, after) in enumerate(zip(low, high, strict=True)):
        if before < 0 or after < 0:  # a negative width crops
            extent = type_of(x).shape[axis]
            x = to.emit("slice", x, axis, max(-before, 0), extent + min(after, 0))
    lows, highs = (tuple(max(w, 0) for w in widths) for widths in (low, high))
    return to.emit("pad", x, lows, highs, value) if any(lows + highs) else x


@rule("cat.default")
def _cat(to: Legalizer, xs: Sequence[Node], axis: int = 0) -> Value:
    full = [to.cast(x, to.dtype) for x in xs if type_of(x).shape != (0,)]
    return full[0] if len(full) == 1 else to.emit("cat", full, axis_of(axis, len(to.shape)))


@rule("stack.default")
def _stack(to: Legalizer, xs: Sequence[Node], axis: int = 0) -> Value:
    axis = axis_of(axis, len(to.shape))
    thin = tuple(1 if i == axis else extent for i, extent in enumerate(to.shape))
    return to.emit("cat", [to.reshape(x, thin) for x in xs], axis)


@rule("repeat.default")
def _repeat(to: Legalizer, x: Node, times: Sequence[int]) -> Value:
    shape = (*(1,) * (len(times) - len(type_of(x).shape)), *type_of(x).shape)
    thin = tuple(extent for each in shape for extent in (1, each))
    wide = tuple(extent for pair in zip(times, shape, strict=True) for extent in pair)
    return to.reshape(to.expand(to.reshape(x, thin), wide), to.shape)


@rule("roll.default")
def _roll(to: Legalizer, x: Node, shifts: Sequence[int], axes: Sequence[int] = ()) -> Value:
    shape = type_of(x).shape
    if not axes:
        flat = to.reshape(x, (type_of(x).size,))
        return to.reshape(_rolled(to, flat, 0, shifts[0]), shape)
    for axis, shift in zip(axes, shifts, strict=True):
        x = _rolled(to, x, axis_of(axis, len(shape)), shift)
    return x


def _rolled(to: Legalizer, x: Node, axis: int, shift: int) -> Node:
    extent = type_of(x).shape[axis]
    start = -shift % extent if extent else 0
    if start == 0:
        return x
    ends = ((start, extent), (0, start))
    return to.emit("cat", [to.emit("slice", x, axis, low, high) for low, high in ends], axis)


@rule("split_with_sizes.default")
def _split(to: Legalizer, x: Node, sizes: Sequence[int], axis: int = 0) -> Value:
    axis = axis_of(axis, len(type_of(x).shape))
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    return tuple(
        to.emit("slice", x, axis, start, start + size)
        for start, size in zip(starts, sizes, strict=True)
    )
