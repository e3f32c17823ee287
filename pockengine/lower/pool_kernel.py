"""Kernels around a pooling or its gradient, with a fused tail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import calls, kind_of, op_name, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.windows import Window
from pockengine.lower import pooling
from pockengine.lower.elementwise import COMPUTE
from pockengine.lower.kernel import find, stored_outputs
from pockengine.lower.nest import Buffer, Expr, Stmt, block
from pockengine.lower.sliding import Pool
from pockengine.lower.tile_parameters import TileParameters
from pockengine.lower.values import Index, Values
from pockengine.lower.window import Adaptive, Sweep
from pockengine.lower.work import Work


def pool_body(graph: Graph, buffers: Mapping[Node, Buffer], tiles: TileParameters) -> Work:
    """The loop nest of a pooling kernel over its range of units."""
    anchor = find(graph, lambda node: kind_of(node) is Kind.STENCIL)
    if 0 in type_of(anchor).shape:
        return Work(0, 1, lambda _begin, _end: block(tirx.Evaluate(0)))
    work = _Pooling(graph, anchor, buffers, tiles)
    return Work(work.extent, 1, work.body)


class _Pooling:
    def __init__(
        self,
        graph: Graph,
        anchor: Node,
        buffers: Mapping[Node, Buffer],
        tiles: TileParameters,
    ) -> None:
        self.anchor = anchor
        self.buffers = buffers
        self.inside = frozenset(calls(graph))
        self.stored = stored_outputs(graph)
        self.is_gradient = op_name(anchor).endswith("_grad")
        arguments: Any = anchor.args
        first = 1 + self.is_gradient + (op_name(anchor) == "max_pool2d_input_grad")
        self.rest = arguments[first + 2 :]
        image = type_of(anchor if self.is_gradient else arguments[0]).shape
        rows, columns = (
            _sweep(window, extent)
            for window, extent in zip(arguments[first : first + 2], image[2:], strict=True)
        )
        self.shape = Pool(
            batch=image[0],
            channels=image[1],
            rows=rows,
            columns=columns,
            lanes=tiles.vector_lanes,
            registers=tiles.vector_registers,
        )

    @property
    def extent(self) -> int:
        """Units of the kernel's range."""
        return self.shape.gradient_extent if self.is_gradient else self.shape.forward_extent

    def body(self, begin: Expr, end: Expr) -> Stmt:
        name, first = op_name(self.anchor), self._pixel(0)
        if name == "max_pool2d":
            return pooling.max_pool(self.shape, first, self._store_value, begin, end)
        if name == "max_pool2d_index":
            return pooling.max_pool(self.shape, first, self._store_index, begin, end)
        if name == "max_pool2d_input_grad":
            winner = self._winner(self._pixel(1))
            return pooling.max_pool_gradient(self.shape, first, winner, self._store, begin, end)
        emit = pooling.average_pool_gradient if self.is_gradient else pooling.average_pool
        return emit(
            self.shape,
            first,
            self._store,
            begin,
            end,
            count_padding=self.rest[0],
            divisor=self.rest[1] or None,
        )

    def _pixel(self, operand: int) -> pooling.PixelValue:
        node: Any = self.anchor.args[operand]

        def value(n: Expr, h: Expr, w: Expr, c0: Expr, lanes: int) -> Expr:
            values = Values(self.buffers, self.inside, inline=True)
            return values.value(node, Index((n, c0, h, w), 1, lanes))

        return value

    @staticmethod
    def _winner(stored: pooling.PixelValue) -> pooling.PixelValue:
        def value(n: Expr, h: Expr, w: Expr, c0: Expr, lanes: int) -> Expr:
            return tirx.Cast(_vector("int32", lanes), stored(n, h, w, c0, lanes))

        return value

    def _store_value(
        self, n: Expr, h: Expr, w: Expr, c0: Expr, lanes: int, value: Expr, index: Expr
    ) -> Stmt:
        del index
        return self._store(n, h, w, c0, lanes, value)

    def _store_index(
        self, n: Expr, h: Expr, w: Expr, c0: Expr, lanes: int, value: Expr, index: Expr
    ) -> Stmt:
        del value
        dtype = COMPUTE[type_of(self.anchor).dtype]
        return self._store(n, h, w, c0, lanes, tirx.Cast(_vector(dtype, lanes), index))

    def _store(self, n: Expr, h: Expr, w: Expr, c0: Expr, lanes: int, value: Expr) -> Stmt:
        index = Index((n, c0, h, w), 1, lanes)
        values = Values(self.buffers, self.inside)
        values.known(self.anchor, value)
        return values.flushed(*values.stores(self.stored, type_of(self.anchor).shape, index))


def _vector(dtype: str, lanes: int) -> str:
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def _sweep(window: Window, extent: int) -> Sweep | Adaptive:
    outputs, kernel, stride, padding, dilation = window
    if kernel == 0:
        return Adaptive(size=extent, windows=outputs)
    return Sweep(
        size=extent,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        windows=outputs,
    )
