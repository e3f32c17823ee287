"""Give every concatenation no more operands than a kernel can have."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

from torch.fx import Graph, Node

from pockengine.ir.graph import Argument, emit, is_op, rebuild, scope_of
from pockengine.ir.verify import base_of

MOST_PARTS = 24
"""Values that one concatenation reads; further views of one of them are free."""


def split_concatenations(graph: Graph) -> Graph:
    """Join many values piece by piece, and then the pieces.

    The pieces are about as many as the values of each, so that n values are copied twice for n up
    to the square of ``MOST_PARTS``, and once more for each further power.

    before (were ``MOST_PARTS`` 2)::

        %a: f32[1x4] = input('a')
        %b: f32[1x4] = input('b')
        %c: f32[1x4] = input('c')
        %y: f32[3x4] = cat((%a, %b, %c), 0)
        return loss=None, outputs=(%y,), gradients={}, updates=()

    after::

        %a: f32[1x4] = input('a')
        %b: f32[1x4] = input('b')
        %c: f32[1x4] = input('c')
        %cat: f32[2x4] = cat((%a, %b), 0)
        %cat_1: f32[3x4] = cat((%cat, %c), 0)
        return loss=None, outputs=(%cat_1,), gradients={}, updates=()

    Not applied to views of few values, such as the steps of a reversed sequence.
    """

    def visit(new: Graph, node: Node, moved: Callable[[Argument], Argument]) -> Node | None:
        if not is_op(node, "cat") or _is_narrow(moved(node.args[0])):
            return None
        return _joined(new, moved(node.args[0]), node.args[1], scope_of(node))

    return rebuild(graph, visit)


def _is_narrow(parts: tuple[Node, ...]) -> bool:
    return len({base_of(part) for part in parts}) <= MOST_PARTS


def _joined(graph: Graph, parts: tuple[Node, ...], axis: Argument, scope: str) -> Node:
    while not _is_narrow(parts):
        size = min(MOST_PARTS, isqrt(len(parts) - 1) + 1)
        pieces = [parts[start : start + size] for start in range(0, len(parts), size)]
        parts = tuple(
            emit(graph, "cat", piece, axis, scope=scope) if len(piece) > 1 else piece[0]
            for piece in pieces
        )
    return emit(graph, "cat", parts, axis, scope=scope)
