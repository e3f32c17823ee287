"""Kernels over rows: softmax, layer normalization and their kin, in as few passes as they need.

Each pass goes over the row once. It takes every reduction whose terms depend only on what earlier
passes found, and stores every result that is complete. A value that needs an elementary function
and is read again in a later pass is kept in a scratch row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import calls, kind_of, op_name, type_of
from pockengine.ir.ops import Kind
from pockengine.lower import elementwise
from pockengine.lower.across import Across, Probe, lying_across, somewhere
from pockengine.lower.kernel import stored_outputs
from pockengine.lower.loops import PIECE, passes_of, rows_of
from pockengine.lower.map_kernel import pieces, split_row
from pockengine.lower.nest import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    bound,
    const,
    held,
    load,
    serial,
    store,
)
from pockengine.lower.reductions import Reduction, accumulate, fold, joined, run_widths
from pockengine.lower.values import Copies, Index, Values
from pockengine.lower.work import Work

_SCRATCH_ELEMENTS = 16384  # of one kept row, on the stack


def rows_body(graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> Work:
    """The passes of a row kernel over its range of rows."""
    return _Rows(graph, buffers, lanes).work()


class _Rows:
    def __init__(self, graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> None:
        self.buffers = dict(buffers)
        self.rows = rows_of(graph)
        self.lead = self.rows.shape[: len(self.rows.shape) - self.rows.row_axes]
        self.lines = self.rows.shape[len(self.rows.shape) - self.rows.row_axes : -1]
        self.lanes = lanes
        self.nodes = [n for n in calls(graph) if kind_of(n) is not Kind.VIEW]
        self.inside = frozenset(calls(graph))
        self.stored = stored_outputs(graph)
        self.stage = self._stages(graph)
        self.last = max(self.stage.values()) + 1
        self.kept = self._kept()

    def _stages(self, graph: Graph) -> dict[Node, int]:
        """The pass that computes each node; an update waits until no pass reads its target."""
        passes = passes_of(calls(graph))
        last = max(passes.values())
        return {
            node: passes[node]
            if kind_of(node) is not Kind.UPDATE
            else last + 1
            if self._per_row(node)
            else last
            for node in self.nodes
        }

    def _is_row_value(self, node: Node) -> bool:
        """Whether a node has one element a row: fusion takes no other of this shape along."""
        return type_of(node).shape in (self.lead, self.lead + (1,) * self.rows.row_axes)

    def _per_row(self, node: Node) -> bool:
        return kind_of(node) is Kind.REDUCE or (
            self._is_row_value(node) and type_of(node).shape != self.rows.shape
        )

    def _kept(self) -> dict[Node, Buffer]:
        """Scratch rows of costly values that later passes read."""
        if self.rows.length > _SCRATCH_ELEMENTS:
            return {}
        found = {}
        for node in self.nodes:
            if self._per_row(node) or op_name(node) not in elementwise.EXPENSIVE:
                continue
            if any(self._use_pass(user) > self.stage[node] for user in self._readers(node)):
                kind = elementwise.COMPUTE[type_of(node).dtype]
                found[node] = tirx.decl_buffer((self.rows.length,), kind, name="row", scope="local")
        return found

    def _readers(self, node: Node) -> list[Node]:
        """Nodes that evaluate a full-row node: its readers, and theirs through full-row nodes."""
        found: list[Node] = []
        stack = [node]
        while stack:
            for user in stack.pop().users:
                if user in self.stage and user not in found:
                    found.append(user)
                if kind_of(user) is Kind.VIEW or (user in self.stage and not self._per_row(user)):
                    stack.append(user)
        return found

    def _use_pass(self, node: Node) -> int:
        """The pass in which a node's full-row operands are read."""
        return self.stage[node] - 1 if kind_of(node) is Kind.REDUCE else self.stage[node]

    def work(self) -> Work:
        """The loop over rows; over tiles of them where an operand lies across the rows."""
        across = self._across()
        scratch = [allocate(row) for row in self.kept.values()]
        if across is None:
            units, height, unit = self.rows.count, 1, self._unit
        else:
            scratch += across.declared
            units = self.rows.count // across.extent * across.tiles
            height = across.rows

            def unit(number: Expr) -> Stmt:
                return self._tile(across, number)

        return Work(
            units,
            max(1, PIECE // max(1, self.rows.length * height)),
            lambda begin, end: block(*scratch, serial("row", end - begin, unit, begin)),
        )

    def _across(self) -> Across | None:
        if self.lanes == 1 or self.rows.length == 0:
            return None
        widest = max(run_widths(self.rows.shape[-1], self.lanes))
        domain = Index(somewhere(self.rows.shape), len(self.rows.shape) - 1, widest)
        row_values = {
            node: elementwise.constant(0, type_of(node).dtype, 1)
            for node in self.nodes
            if self._per_row(node)
        }
        probe = Probe(self.buffers, self.inside, row_values)
        for node in self.nodes:
            if kind_of(node) is Kind.REDUCE:
                probe.value(Reduction(node).source, domain)
            elif node in self.stored and not self._per_row(node):
                probe.value(node, probe.elsewhere(self.rows.shape, node, domain))
        return lying_across(probe, domain, dict(enumerate(self.lead)), self.rows.length)

    def _unit(self, number: Expr) -> Stmt:
        """One row."""
        statements, places = split_row(number, self.lead)
        return block(*statements, *self._row(places, lambda _: {}))

    def _tile(self, across: Across, number: Expr) -> Stmt:
        """Some rows along the axis along which what lies across them is contiguous."""
        extents = list(self.lead)
        extents[across.axis] = across.tiles
        statements, places = split_row(number, extents)

        def rows(first: Expr, height: int) -> Stmt:
            def row(step: Expr) -> Stmt:
                here = [first + step if a == across.axis else p for a, p in enumerate(places)]
                return block(*self._row(here, lambda spot: across.known(height, step, spot)))

            def line(number: Expr) -> Stmt:
                bind, outer = split_row(number, self.lines)
                here = [first if a == across.axis else p for a, p in enumerate(places)]
                columns = self.rows.shape[-1]
                place = (*here, *outer, const(0))
                spot = number * const(columns)
                return block(*bind, *across.copied(place, height, columns, spot))

            return block(serial("line", prod(self.lines), line), serial("row", height, row))

        return block(*statements, *across.tile(places[across.axis], rows))

    def _row(self, places: list[Expr], copies: Callable[[Expr], Copies]) -> list[Stmt]:
        statements: list[Stmt] = []
        fixed: dict[Node, Expr] = {}
        for number_of_pass in range(self.last):
            statements += self._scalars(number_of_pass, places, fixed)
            statements += self._pass(number_of_pass, places, fixed, copies)
        return statements

    def _scalars(self, number: int, places: list[Expr], fixed: dict[Node, Expr]) -> list[Stmt]:
        """The row's own values that this pass can use, and their stores."""
        statements: list[Stmt] = []
        for node in self.nodes:
            if self.stage[node] != number or not self._per_row(node):
                continue
            rank = len(type_of(node).shape)
            index = Index((*places, *[const(0)] * (rank - len(places))))
            values = Values(self.buffers, self.inside, fixed)
            if node not in fixed:
                made, scalar = held("scalar", values.value(node, index))
                statements += [*values.statements, *made]
                values.statements = []
                fixed[node] = scalar
            if node in self.stored:
                statements.append(values.flushed(values.store(node, index, fixed[node])))
        return statements

    def _pass(
        self,
        number: int,
        places: list[Expr],
        fixed: dict[Node, Expr],
        copies: Callable[[Expr], Copies],
    ) -> list[Stmt]:
        """One walk over the row."""
        reductions = [
            Reduction(n)
            for n in self.nodes
            if kind_of(n) is Kind.REDUCE and self.stage[n] == number + 1
        ]
        full = [n for n in self.nodes if not self._per_row(n) and self.stage[n] == number]
        stores = [n for n in full if n in self.stored]
        keep = [n for n in full if n in self.kept]
        if not (reductions or stores or keep):
            return []
        extent = self.rows.shape[-1]
        widths = run_widths(extent, self.lanes)
        totals = [{w: _accumulator(r, w) for w in widths} for r in reductions]
        statements = [allocate(b) for group in totals for b in group.values()]
        statements += [
            tirx.BufferStore(totals[r][w], reduction.neutral(w), [const(0)])
            for r, reduction in enumerate(reductions)
            for w in widths
        ]

        def element(outer: list[Expr], at: Expr, width: int) -> Stmt:
            spot = self._spot(outer, at)
            values = Values(self.buffers, self.inside, fixed, copies=copies(spot))
            index = Index((*places, *outer, at), len(self.rows.shape) - 1, width)
            self._recall(values, number, spot, width)
            body = []
            for node in keep:
                value = values.value(node, values.elsewhere(self.rows.shape, node, index))
                body.append(store(self.kept[node], spot, value, width))
            for r, reduction in enumerate(reductions):
                value = values.value(reduction.source, index)
                body.append(accumulate(totals[r][width], reduction, value))
            return values.flushed(*body, *values.stores(stores, self.rows.shape, index))

        statements.append(self._walk(extent, element))
        for reduction, group in zip(reductions, totals, strict=True):
            statements += self._fold(reduction, group, fixed)
        return statements

    def _walk(self, extent: int, element: Callable[[list[Expr], Expr, int], Stmt]) -> Stmt:
        """A loop over the row: its leading axes flat, its last one in vectors."""

        def line(number: Expr) -> Stmt:
            statements, outer = split_row(number, self.lines)
            run = pieces(extent, self.lanes, lambda at, w: element(outer, at, w))
            return block(*statements, *run)

        return serial("line", prod(self.lines), line)

    def _recall(self, values: Values, number: int, spot: Expr, width: int) -> None:
        """Values of earlier passes come from their scratch row."""
        for node, row in self.kept.items():
            if self.stage[node] < number:
                values.known(node, load(row, spot, width))

    def _spot(self, outer: list[Expr], at: Expr) -> Expr:
        """The number of an element within its row."""
        flat = const(0)
        for extent, place in zip(self.lines, outer, strict=True):
            flat = flat * const(extent) + place
        return flat * const(self.rows.shape[-1]) + at

    @staticmethod
    def _fold(
        reduction: Reduction, group: dict[int, Buffer], fixed: dict[Node, Expr]
    ) -> list[Stmt]:
        statements: list[Stmt] = []
        scalars = []
        for width, total in group.items():
            lanes, bind = bound("lanes", tirx.BufferLoad(total, [const(0)]))
            folds, scalar = fold(lanes, width, reduction.combine)
            statements += [bind, *folds]
            scalars.append(scalar)
        joins, fixed[reduction.node] = joined(scalars, reduction.combine)
        return [*statements, *joins]


def _accumulator(reduction: Reduction, lanes: int) -> Buffer:
    return tirx.decl_buffer((1,), reduction.local_dtype(lanes), name="total", scope="local")
