"""Kernels around a depthwise convolution: weights prepared once a channel tile, a fused tail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.fx import Graph, Node

from pockengine.ir.graph import calls, op_name, type_of
from pockengine.lower import depthwise
from pockengine.lower.kernel import stored_outputs
from pockengine.lower.nest import Buffer, Expr, Stmt, const
from pockengine.lower.stencils import depthwise_shape, stencil_anchor
from pockengine.lower.tile_parameters import TileParameters
from pockengine.lower.values import Index, Values
from pockengine.lower.work import Work


def stencil_body(graph: Graph, buffers: Mapping[Node, Buffer], tiles: TileParameters) -> Work:
    """The loop nest of a depthwise kernel over its range of units."""
    work = _Stencil(graph, buffers, tiles)
    return Work(work.extent, 1, work.body)


class _Stencil:
    def __init__(self, graph: Graph, buffers: Mapping[Node, Buffer], tiles: TileParameters) -> None:
        self.anchor = stencil_anchor(graph)
        self.shape = depthwise_shape(self.anchor, tiles)
        self.buffers = buffers
        self.inside = frozenset(calls(graph))
        self.stored = stored_outputs(graph)

    @property
    def extent(self) -> int:
        """Units of the kernel's range."""
        if op_name(self.anchor) == "conv2d_weight_grad":
            return self.shape.weight_gradient_extent
        if op_name(self.anchor) == "conv2d":
            return self.shape.forward_extent
        return self.shape.input_gradient_extent

    def body(self, begin: Expr, end: Expr) -> Stmt:
        first: Any = self.anchor.args[0]
        second: Any = self.anchor.args[1]
        if op_name(self.anchor) == "conv2d_weight_grad":
            return depthwise.weight_gradient(
                self.shape, self._pixel(first), self._pixel(second), self._store_weight, begin, end
            )
        nest = depthwise.forward if op_name(self.anchor) == "conv2d" else depthwise.input_gradient
        return nest(
            self.shape, self._pixel(first), self._weight(second), self._store_pixel, begin, end
        )

    def _read(self, node: Node, place: tuple[Expr, ...], axis: int, lanes: int) -> Expr:
        values = Values(self.buffers, self.inside, inline=True)
        return values.value(node, Index(place, axis, lanes))

    def _pixel(self, node: Node) -> depthwise.PixelValue:
        return lambda n, h, w, c0, lanes: self._read(node, (n, c0, h, w), 1, lanes)

    def _weight(self, node: Node) -> depthwise.WeightValue:
        return lambda r, s, c0, lanes: self._read(node, (c0, const(0), r, s), 0, lanes)

    def _store_pixel(self, n: Expr, h: Expr, w: Expr, c0: Expr, lanes: int, value: Expr) -> Stmt:
        return self._finish(Index((n, c0, h, w), 1, lanes), value)

    def _store_weight(self, r: Expr, s: Expr, c0: Expr, lanes: int, value: Expr) -> Stmt:
        return self._finish(Index((c0, const(0), r, s), 0, lanes), value)

    def _finish(self, index: Index, value: Expr) -> Stmt:
        values = Values(self.buffers, self.inside)
        values.known(self.anchor, value)
        return values.flushed(*values.stores(self.stored, type_of(self.anchor).shape, index))
