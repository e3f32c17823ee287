"""Rules of sums of what was cut apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch.fx import Node

from pockengine.ir.graph import Argument, type_of
from pockengine.passes.simplify_rules.table import (
    Emitter,
    arguments,
    is_call,
    is_float,
    operand,
    rule,
)

_FEWEST_PARTS = 4
"""Parts that are joined rather than added: fewer are padded within the kernel that adds them."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A value among zeros along an axis.

    Args:
        node: the value.
        start: zeros ahead of it.
        rest: zeros behind it.
    """

    node: Node
    start: int
    rest: int


@rule("add")
def _sum_of_parts(to: Emitter, x: Argument, y: Argument) -> Node | None:
    """``pad(x) + pad(y) + ... -> pad(cat(x, y, ...))``, where none lies over another.

    The gradient of a value that was read piece by piece, such as a sequence's by its time steps,
    is that sum: each term would be another walk over all of it.
    """
    if not isinstance(x, Node) or not isinstance(y, Node) or not _are_alike(x, y):
        return None
    axis = _padded_axis(x)
    if axis is None:
        axis = _padded_axis(y)
    if axis is None:
        return None
    terms = [*_terms(to, x), *_terms(to, y)]
    axes = [_padded_axis(term) for term in terms]
    padded = [term for term, along in zip(terms, axes, strict=True) if along is not None]
    if len(padded) < 2 or any(along not in (axis, None) for along in axes):
        return None
    parts = sorted((_part(term, axis) for term in padded), key=lambda part: part.start)
    if sum(len(_joined_already(part.node, axis)) for part in parts) < _FEWEST_PARTS:
        return None
    extent = type_of(x).shape[axis]
    if any(extent - a.rest > b.start for a, b in pairwise(parts)):
        return None
    whole = _joined(to, parts, axis, extent)
    for term, along in zip(terms, axes, strict=True):
        if along is None:
            whole = to.emit("add", term, whole)
    return whole


def _terms(to: Emitter, x: Node) -> Iterator[Node]:
    """The terms of a sum that nobody else reads, all of its shape."""
    stack = [x]
    while stack:
        term = stack.pop()
        if is_call(term, "add") and to.is_read_once(term) and _are_alike(*arguments(term)):
            stack += reversed(arguments(term))
        else:
            yield term


def _are_alike(x: Argument, y: Argument) -> bool:
    """Whether two arguments are values of one shape."""
    nodes = isinstance(x, Node) and isinstance(y, Node)
    return nodes and type_of(x).shape == type_of(y).shape


def _padded_axis(x: Node) -> int | None:
    """The axis along which a value was put among zeros, if it is one alone."""
    if not is_call(x, "pad") or arguments(x)[3] != 0 or not is_float(x):
        return None
    _, low, high, _ = arguments(x)
    axes = [axis for axis, ends in enumerate(zip(low, high, strict=True)) if any(ends)]
    return axes[0] if len(axes) == 1 else None


def _part(x: Node, axis: int) -> _Part:
    source, low, high, _ = arguments(x)
    return _Part(source, low[axis], high[axis])


def _joined_already(x: Node, axis: int) -> tuple[Node, ...]:
    """The values that are joined along an axis: the value itself, if it is no concatenation."""
    joined = is_call(x, "cat") and arguments(x)[1] == axis
    return tuple(operand(x)) if joined else (x,)  # type: ignore[arg-type]


def _joined(to: Emitter, parts: list[_Part], axis: int, extent: int) -> Node:
    """The parts one behind another, zeros between them, ahead and behind."""
    nodes: list[Node] = []
    for part, behind in zip(parts, (*parts[1:], None), strict=True):
        gap = behind.start - (extent - part.rest) if behind else 0
        nodes += _joined_already(_among_zeros(to, part.node, axis, 0, gap), axis)
    whole = to.emit("cat", tuple(nodes), axis)
    return _among_zeros(to, whole, axis, parts[0].start, parts[-1].rest)


def _among_zeros(to: Emitter, x: Node, axis: int, ahead: int, behind: int) -> Node:
    low, high = ([0] * len(type_of(x).shape) for _ in range(2))
    low[axis], high[axis] = ahead, behind
    return to.emit("pad", x, tuple(low), tuple(high), 0.0) if ahead or behind else x
