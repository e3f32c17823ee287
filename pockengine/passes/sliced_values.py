"""Writing one slice of a region."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Argument,
    emit,
    emit_typed,
    is_op,
    kind_of,
    op_name,
    scope_of,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.passes.sliced_regions import (
    Region,
    is_along,
    keeps_leading,
    leading,
    leading_extent,
)


class Slicer:
    """Writes slice ``number`` of a region's values into a new graph.

    Args:
        graph: the new graph.
        region: of the old one.
        number: of the slice.
        place: the new node of a value from outside the region.

    Attributes:
        made: by old node, its slice.
    """

    def __init__(
        self, graph: Graph, region: Region, number: int, place: Callable[[Node], Node]
    ) -> None:
        self._graph = graph
        self._parts = region.parts
        self._number = number
        self._place = place
        self.made: dict[Node, Node] = {}

    def write(self, node: Node) -> Node:
        """The slice of a value that the region computes."""
        reads = {operand: self._read(node, operand) for operand in node.all_input_nodes}
        args: tuple[Argument, ...] = _mapped(node.args, reads)
        kind = type_of(node)
        shape = self._short(node)
        if is_op(node, "full", "iota"):
            args = (shape, *args[1:])
        made = emit_typed(self._graph, op_name(node), args, node.kwargs, replace(kind, shape=shape))
        if scope_of(node):
            made.meta["scope"] = scope_of(node)
        self.made[node] = made
        return made

    def _short(self, node: Node) -> tuple[int, ...]:
        """The shape of a slice of a value."""
        shape, axis = list(type_of(node).shape), leading(node)
        assert axis is not None
        shape[axis] //= self._parts
        return tuple(shape)

    def _read(self, node: Node, operand: Node) -> Node:
        return self._slice(operand) if is_along(node, operand) else self._place(operand)

    def _slice(self, node: Node) -> Node:
        """The slice of a value: of what it shows, as far as that has the same slices."""
        if node not in self.made:
            self.made[node] = self._view(node) or self._cut(node)
        return self.made[node]

    def _view(self, node: Node) -> Node | None:
        if kind_of(node) is not Kind.VIEW:
            return None
        source = node.args[0]
        assert isinstance(source, Node)
        if not keeps_leading(node, source) or leading_extent(source) % self._parts:
            return None
        args: Any = node.args[1:]
        if op_name(node) in ("reshape", "expand"):
            args = (self._short(node),)
        return emit(self._graph, op_name(node), self._slice(source), *args)

    def _cut(self, node: Node) -> Node:
        axis = leading(node)
        size = leading_extent(node) // self._parts
        start = self._number * size
        return emit(self._graph, "slice", self._place(node), axis, start, start + size)


def _mapped(args: Any, reads: dict[Node, Node]) -> Any:
    if isinstance(args, tuple):
        return tuple(_mapped(each, reads) for each in args)
    return reads.get(args, args) if isinstance(args, Node) else args
