"""ATen padding by the tensor's own elements, as slices of it: no index is computed."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer, Value, rule
from pockengine.ir.graph import type_of


def _widths(widths: Sequence[int], rank: int) -> list[tuple[int, int, int]]:
    """(axis, ahead, behind), the last axis first as in PyTorch."""
    return [
        (rank - 1 - place, widths[2 * place], widths[2 * place + 1])
        for place in range(len(widths) // 2)
    ]


def _part(to: Legalizer, x: Node, axis: int, start: int, stop: int) -> Node:
    whole = (start, stop) == (0, type_of(x).shape[axis])
    return x if whole else to.emit("slice", x, axis, start, stop)


def _joined(to: Legalizer, parts: Sequence[Node], axis: int) -> Node:
    full = [part for part in parts if type_of(part).shape[axis]]
    return full[0] if len(full) == 1 else to.emit("cat", full, axis)


@rule("replication_pad1d.default", "replication_pad2d.default", "replication_pad3d.default")
def _replicate(to: Legalizer, x: Node, widths: Sequence[int]) -> Value:
    for axis, ahead, behind in _widths(widths, len(type_of(x).shape)):
        shape = type_of(x).shape
        extent = shape[axis]

        def repeated(place: int, times: int, axis: int = axis, x: Node = x) -> list[Node]:
            wide = tuple(times if a == axis else e for a, e in enumerate(type_of(x).shape))
            return [to.expand(_part(to, x, axis, place, place + 1), wide)] if times > 0 else []

        middle = _part(to, x, axis, max(-ahead, 0), extent + min(behind, 0))
        x = _joined(to, [*repeated(0, ahead), middle, *repeated(extent - 1, behind)], axis)
    return x


@rule(
    "replication_pad1d_backward.default",
    "replication_pad2d_backward.default",
    "replication_pad3d_backward.default",
)
def _replicate_backward(to: Legalizer, grad: Node, x: Node, widths: Sequence[int]) -> Value:
    """An edge's gradient is the sum over its copies, one axis after the other."""
    shape = type_of(x).shape
    for axis, ahead, behind in _widths(widths, len(shape)):
        if ahead < 0 or behind < 0:
            raise NotImplementedError("gradient of replication padding by negative widths")
        extent = shape[axis]
        if extent == 1:
            grad = to.emit("sum", grad, (axis,), True)
            continue
        inner = _part(to, grad, axis, ahead + 1, ahead + extent - 1)
        first = _part(to, grad, axis, 0, ahead + 1)
        last = _part(to, grad, axis, ahead + extent - 1, ahead + extent + behind)
        edges = [to.emit("sum", edge, (axis,), True) for edge in (first, last)]
        grad = _joined(to, [edges[0], inner, edges[1]], axis)
    return grad
