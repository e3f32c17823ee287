"""Kernels around a matmul or a dense convolution: weights prepared while packed, a fused tail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import calls, kind_of, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.verify import base_of
from pockengine.lower.contraction import contraction
from pockengine.lower.kernel import stored_outputs
from pockengine.lower.map_kernel import pieces
from pockengine.lower.nest import Buffer, Expr, Stmt, block, const, ranges, serial, zeros
from pockengine.lower.operands import (
    geometry,
    packs_left,
    reads_in_place,
    rows_adjacent,
    rows_dense,
    runs_along_steps,
    steps_adjacent,
    tuned,
)
from pockengine.lower.products import Product, present, products, summed_of
from pockengine.lower.summed import ColumnSums, Contraction, Left, Right
from pockengine.lower.tile_parameters import Choice, TileParameters
from pockengine.lower.values import Index, Values
from pockengine.lower.work import Work

_LONG_TAIL = 6  # ops behind a sum from which one copy of the tail beats unrolling it


def split_inline(flat: Expr, extents: Sequence[int]) -> tuple[Expr, ...]:
    """A flat number as one index expression an axis, outermost first."""
    places: list[Expr] = []
    rest = flat
    for extent in reversed(extents):
        outermost = len(places) == len(extents) - 1
        if extent == 1:
            places.append(const(0))
            continue
        places.append(rest if outermost else tirx.truncmod(rest, const(extent)))
        rest = tirx.truncdiv(rest, const(extent))
    return tuple(reversed(places))


def contract_body(
    graph: Graph,
    buffers: Mapping[Node, Buffer],
    parameters: TileParameters,
    choices: Mapping[str, Choice],
) -> Work:
    """The loop nests of a contraction kernel over its range of units; choices by signature."""
    parts = []
    for summed in products(graph):
        terms = present(summed)
        tiles = tuned(terms, parameters, choices)
        product = terms[0]
        tail = _Tail(graph, buffers, product)
        if product.empty:
            parts.append((product.rows, _zero_nest(product, tail, tiles.vector_lanes)))
            continue
        alone = len(terms) == 1
        work, *also = (_contraction(graph, buffers, t, tail, tiles, alone=alone) for t in terms)
        work = replace(work, also=tuple(also))
        cut = geometry(terms, tiles)
        parts.append((cut.extent, _nest(work, cut)))
    if len(parts) == 1:
        return Work(parts[0][0], 1, parts[0][1])
    total = sum(extent for extent, _ in parts)
    return Work(total, 1, lambda begin, end: ranges(parts, begin, end))


def _nest(work: Contraction, cut: Any) -> Callable[[Expr, Expr], Stmt]:
    return lambda begin, end: contraction(work, cut, begin, end)


class _Tail:
    """What follows a finished sum: the fused elementwise ops and the stores."""

    def __init__(self, graph: Graph, buffers: Mapping[Node, Buffer], product: Product) -> None:
        self.anchor = summed_of(graph)
        self.buffers = buffers
        self.product = product
        self.inside = frozenset(calls(graph))
        sums = [node for node in calls(graph) if kind_of(node) is Kind.REDUCE]
        gradient = base_of(product.right)
        self.of_right = [node for node in sums if base_of(node.args[0]) is gradient]
        self.sums = [node for node in sums if node not in self.of_right]
        self.elements = [n for n in stored_outputs(graph) if not self._is_per_column(n)]
        self.per_column = [n for n in stored_outputs(graph) if self._is_per_column(n)]

    def _is_per_column(self, node: Node) -> bool:
        """Whether a value has one element a column: it follows from the columns' sums."""
        return any(type_of(node).size == type_of(s).size for s in (*self.sums, *self.of_right))

    @property
    def column_sums(self) -> ColumnSums | None:
        """The sums of columns, if there are any."""
        if not self.sums and not self.of_right:
            return None
        return ColumnSums(
            terms=len(self.sums),
            of_right=bool(self.of_right),
            store=self.store,
            finish=self.finish,
        )

    def store(
        self,
        batch: Expr,
        row: Expr,
        column: Expr,
        lanes: int,
        value: Expr,
        add: Callable[[int, Expr], Stmt] | None = None,
    ) -> Stmt:
        values = Values(self.buffers, self.inside)
        values.known(self.anchor, value)
        index = self._index(batch, row, column, lanes)
        shape = type_of(self.anchor).shape
        stores = []
        for number, node in enumerate(map(source_of, self.sums)):
            assert add is not None
            stores.append(add(number, values.value(node, values.elsewhere(shape, node, index))))
        return values.flushed(*stores, *values.stores(self.elements, shape, index))

    def finish(self, batch: Expr, column: Expr, lanes: int, totals: Sequence[Expr]) -> Stmt:
        """What follows the sums of a column, given ``sums`` and then the right operand's."""
        values = Values(self.buffers, self.inside)
        for node, total in zip(self.sums, totals, strict=False):
            values.known(node, total)
        for node in self.of_right:
            values.known(node, totals[-1])
        axis = self.product.out_axis
        place = self.product.out_place(split_inline, batch, const(0), column)
        index = Index((_expr(place[axis]),), 0, lanes)
        shape = (type_of(self.anchor).shape[axis],)
        return values.flushed(*values.stores(self.per_column, shape, index))

    def prefetches(self, batch: Expr, row: Expr, column: Expr, lanes: int) -> list[Stmt]:
        """Prefetches of all that ``store`` will read and write besides the sum."""
        values = Values(self.buffers, self.inside)
        values.vectors[self.anchor] = zeros(lanes)
        index = self._index(batch, row, column, lanes)
        nodes = (*map(source_of, self.sums), *self.elements)
        shape = type_of(self.anchor).shape
        found = values.prefetches((node, values.elsewhere(shape, node, index)) for node in nodes)
        return [*values.statements, *found]

    def _index(self, batch: Expr, row: Expr, column: Expr, lanes: int) -> Index:
        """The place of a sum in the anchor's result."""
        place = self.product.out_place(split_inline, batch, row, column)
        return Index(tuple(_expr(p) for p in place), self.product.out_axis, lanes)

    @property
    def long(self) -> bool:
        """Whether the tail has many operations."""
        return sum(not self._is_per_column(node) for node in self.inside) > _LONG_TAIL


def source_of(reduction: Node) -> Node:
    """What a sum adds up."""
    source = reduction.args[0]
    assert isinstance(source, Node)
    return source


def _expr(place: Any) -> Expr:
    return const(place) if isinstance(place, int) else place


def _contraction(
    graph: Graph,
    buffers: Mapping[Node, Buffer],
    product: Product,
    tail: _Tail,
    tiles: TileParameters,
    *,
    alone: bool,
) -> Contraction:
    """One product; the left rows of several that are summed are not copied whole."""
    inside = frozenset(calls(graph))
    along = runs_along_steps(product)
    direct = reads_in_place(product, tiles)

    def right(batch: Expr, steps: Sequence[Expr], column: Expr, lanes: int) -> Expr:
        place = product.right_place(split_inline, batch, steps, column)
        axis = product.step_axis if along and not direct else product.right_axis
        values = Values(buffers, inside, inline=True)
        index = Index(tuple(_expr(p) for p in place), axis, lanes)
        return values.value(product.right, index)

    def right_ahead(batch: Expr, steps: Sequence[Expr], column: Expr) -> list[Stmt]:
        place = product.right_place(split_inline, batch, steps, column)
        values = Values(buffers, inside, inline=True)
        index = Index(tuple(_expr(p) for p in place), product.right_axis, tiles.vector_lanes)
        return values.prefetches([(product.right, index)])

    return Contraction(
        batch=product.batch,
        rows=product.rows,
        columns=product.columns,
        reduction=product.reduction,
        left=Left(
            buffer=buffers[base_of(product.left)],
            base=lambda batch, row: _expr(product.left_row(split_inline, batch, row)),
            offset=lambda steps: _expr(product.left_step(steps)),
            packed=alone and packs_left(product, tiles),
            dense=rows_dense(product),
            adjacent=rows_adjacent(product),
            along_steps=steps_adjacent(product),
        ),
        right=Right(
            value=right,
            direct=direct,
            along_reduction=along and not direct,
            prefetch=right_ahead,
        ),
        store=tail.store,
        prefetch=tail.prefetches,
        row_period=product.row_period,
        compact_store=tail.long,
        column_sums=tail.column_sums,
    )


def _zero_nest(product: Product, tail: _Tail, lanes: int) -> Callable[[Expr, Expr], Stmt]:
    """Where no term reaches, the sum is zero; the range runs over rows."""

    def row(number: Expr) -> Stmt:
        def each(batch: Expr) -> Stmt:
            run = pieces(
                product.columns,
                lanes,
                lambda at, width: tail.store(batch, number, at, width, zeros(width)),
            )
            return block(*run)

        return serial("b", product.batch, each)

    return lambda begin, end: serial("row", end - begin, row, begin)
