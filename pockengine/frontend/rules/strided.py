"""ATen's views of a tensor's memory by strides, where the tensor is contiguous."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor
from torch.fx import Node

from pockengine.frontend.rules.places import take, write_into
from pockengine.frontend.rules.table import Legalizer, Value, rule
from pockengine.ir.graph import type_of


@rule("as_strided.default")
def _as_strided(
    to: Legalizer, x: Node, shape: Sequence[int], strides: Sequence[int], offset: int | None = None
) -> Value:
    start = _start(to, shape, strides, offset)
    if _is_whole(x, shape, strides):
        return to.reshape(x, to.shape)
    return take(to, to.reshape(x, (type_of(x).size,)), _numbers(to, shape, strides, start), 1)


@rule("as_strided_scatter.default")
def _as_strided_scatter(
    to: Legalizer,
    x: Node,
    values: Node,
    shape: Sequence[int],
    strides: Sequence[int],
    offset: int | None = None,
) -> Value:
    start = _start(to, shape, strides, offset)
    values = to.cast(values, type_of(x).dtype)
    if _is_whole(x, shape, strides):
        return to.reshape(values, to.shape)
    flat = to.reshape(x, (type_of(x).size,))
    written = write_into(to, flat, values, _numbers(to, shape, strides, start), 1)
    return to.reshape(written, to.shape)


def _start(to: Legalizer, shape: Sequence[int], strides: Sequence[int], offset: int | None) -> int:
    """Where a view begins, counted from the tensor's first element.

    Raises:
        NotImplementedError: the tensor is not contiguous, or the view reaches out of it.
    """
    source: Tensor = to.node.args[0].meta["val"]  # type: ignore[union-attr]
    ahead = int(source.storage_offset())
    start = (ahead if offset is None else offset) - ahead
    steps = zip(shape, strides, strict=True)
    last = start + sum((extent - 1) * stride for extent, stride in steps)
    inside = not prod(shape) or 0 <= start <= last < source.numel()
    if not inside or not source.is_contiguous():
        raise NotImplementedError(f"as_strided to {tuple(shape)} by {tuple(strides)}")
    return start


def _is_whole(x: Node, shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether a view shows all of a contiguous tensor in its order."""
    step = 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1 and stride != step:
            return False
        step *= extent
    return step == type_of(x).size


def _numbers(to: Legalizer, shape: Sequence[int], strides: Sequence[int], start: int) -> Node:
    """The number of each element of a view in the tensor."""
    total = to.emit("full", (1,) * len(shape), start, "i64")
    for axis, stride in enumerate(strides):
        line = tuple(extent if i == axis else 1 for i, extent in enumerate(shape))
        total = to.emit("add", total, to.emit("mul", to.emit("iota", line, axis), stride))
    return to.expand(total, tuple(shape))
