"""Kernels that sum over axes other than a row's: per channel, per column, or to a scalar."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import calls, kind_of, type_of
from pockengine.ir.ops import Kind
from pockengine.lower.across import Across, Probe, lying_across, somewhere
from pockengine.lower.kernel import stored_outputs
from pockengine.lower.loops import Columns, columns_of
from pockengine.lower.map_kernel import pieces, split_row
from pockengine.lower.nest import Buffer, Expr, Stmt, allocate, block, bound, const, serial
from pockengine.lower.reductions import Reduction, accumulate, fold, joined, run_widths
from pockengine.lower.register_tiles import vector_pieces
from pockengine.lower.values import Copies, Index, Values
from pockengine.lower.work import Work

_CHUNK = 64  # terms summed in a row before their sum joins the total: keeps rounding errors small


def reduce_body(graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> Work:
    """The sums of a reduce kernel over its range of units."""
    loops = columns_of(graph)
    return Work(loops.units(lanes), 1, _Reduce(graph, buffers, loops, lanes).body)


class _Reduce:
    def __init__(
        self, graph: Graph, buffers: Mapping[Node, Buffer], loops: Columns, lanes: int
    ) -> None:
        self.buffers = buffers
        self.loops = loops
        self.lanes = lanes
        self.reductions = [Reduction(n) for n in calls(graph) if kind_of(n) is Kind.REDUCE]
        self.stored = stored_outputs(graph)
        self.inside = frozenset(calls(graph))

    def body(self, begin: Expr, end: Expr) -> Stmt:
        return serial("unit", end - begin, self._unit, begin)

    def _unit(self, number: Expr) -> Stmt:
        loops = self.loops
        tiles = loops.tiles(self.lanes)
        row = number if tiles == 1 else tirx.truncdiv(number, const(tiles))
        statements, places = split_row(row, [loops.shape[a] for a in loops.kept])
        kept = dict(zip(loops.kept, places, strict=True))
        if not loops.lane_kept or loops.lane is None:
            return block(*statements, self._along_reduced(kept))
        width = 4 * self.lanes
        extent = loops.shape[loops.lane]
        tile = tirx.truncmod(number, const(tiles)) if tiles > 1 else const(0)
        start, bind = bound("start", tile * const(width))
        statements.append(bind)
        full, tail = extent // width, extent % width
        whole = self._along_kept(kept, start, [self.lanes] * 4) if full else None
        part = self._along_kept(kept, start, vector_pieces(tail, self.lanes)) if tail else None
        if whole is not None and part is not None:
            whole = tirx.IfThenElse(tirx.LT(tile, const(full)), whole, part)
        return block(*statements, whole if whole is not None else part)

    # --- vectors along a kept axis ---------------------------------------------------------------

    def _along_kept(self, kept: dict[int, Expr], start: Expr, widths: Sequence[int]) -> Stmt:
        """One tile of columns: all terms added in registers, then the tail of each vector."""
        lane = self.loops.lane
        assert lane is not None
        starts = [start + const(sum(widths[:i])) for i in range(len(widths))]
        totals = [[self._accumulator(r, w, "total") for w in widths] for r in self.reductions]
        parts = [[self._accumulator(r, w, "part") for w in widths] for r in self.reductions]

        def term(places: dict[int, Expr], known: Callable[[Expr], Copies]) -> Stmt:
            values = Values(self.buffers, self.inside)
            stores = []
            for v, width in enumerate(widths):
                values.copies = known(starts[v] - start)
                index = self._index({**kept, **places, lane: starts[v]}, width)
                for r, reduction in enumerate(self.reductions):
                    value = values.value(reduction.source, index)
                    stores.append(accumulate(parts[r][v], reduction, value))
            return values.flushed(*stores)

        def chunk(inner: Callable[[], Stmt]) -> Stmt:
            cells = [(r, v) for r in range(len(self.reductions)) for v in range(len(widths))]
            clear = [_reset(parts[r][v], self.reductions[r], widths[v]) for r, v in cells]
            join = [
                accumulate(totals[r][v], self.reductions[r], _read(parts[r][v])) for r, v in cells
            ]
            return block(*clear, inner(), *join)

        across = self._across(max(widths), sum(widths))
        if across is None:
            body = self._reduced_loops(lambda places: term(places, lambda _: {}), chunk)
        else:
            body = self._by_tiles(across, {**kept, lane: start}, sum(widths), term, chunk)
        finish = [
            self._finish({**kept, lane: starts[v]}, lane, width, [_read(t[v]) for t in totals])
            for v, width in enumerate(widths)
        ]
        clear = [
            _reset(totals[r][v], reduction, width)
            for r, reduction in enumerate(self.reductions)
            for v, width in enumerate(widths)
        ]
        buffers = [b for group in (*totals, *parts) for b in group]
        declared = () if across is None else across.declared
        return block(*map(allocate, buffers), *declared, *clear, body, *finish)

    def _across(self, lanes: int, columns: int) -> Across | None:
        """What lies across the vectors, along the innermost of the reduced axes."""
        if lanes == 1 or not self.loops.reduced:
            return None
        domain = Index(somewhere(self.loops.shape), self.loops.lane, lanes)
        probe = Probe(self.buffers, self.inside)
        for reduction in self.reductions:
            probe.value(reduction.source, domain)
        last = self.loops.reduced[-1]
        return lying_across(probe, domain, {last: self.loops.shape[last]}, columns)

    def _by_tiles(
        self,
        across: Across,
        first: dict[int, Expr],
        columns: int,
        term: Callable[[dict[int, Expr], Callable[[Expr], Copies]], Stmt],
        chunk: Callable[[Callable[[], Stmt]], Stmt],
    ) -> Stmt:
        """The reduced axes outside in; some steps of the innermost one at once, copied."""

        def tiles(places: dict[int, Expr]) -> Stmt:
            def steps(begin: Expr, height: int) -> Stmt:
                def step(number: Expr) -> Stmt:
                    at = {**places, across.axis: begin + number}
                    return term(at, lambda spot: across.known(height, number, spot))

                place = self._index({**first, **places, across.axis: begin}, 1).place
                copies = across.copied(place, height, columns, const(0))
                return block(*copies, chunk(lambda: serial("k", height, step)))

            return serial("tile", across.tiles, lambda number: block(*across.tile(number, steps)))

        return self._outer_loops(self.loops.reduced[:-1], tiles)

    def _reduced_loops(
        self, term: Callable[[dict[int, Expr]], Stmt], chunk: Callable[[Callable[[], Stmt]], Stmt]
    ) -> Stmt:
        """The reduced axes outside in; the innermost one in chunks."""
        axes = self.loops.reduced
        if not axes:
            return chunk(lambda: term({}))
        *outer, last = axes
        extent = self.loops.shape[last]

        def innermost(places: dict[int, Expr]) -> Stmt:
            if extent <= _CHUNK:
                return chunk(lambda: serial("k", extent, lambda k: term({**places, last: k})))
            count = -(-extent // _CHUNK)

            def piece(number: Expr) -> Stmt:
                first, bind = bound("first", number * const(_CHUNK))
                size = tirx.min(const(extent) - first, const(_CHUNK))
                run = serial("k", size, lambda k: term({**places, last: first + k}))
                return block(bind, chunk(lambda: run))

            return serial("chunk", count, piece)

        return self._outer_loops(outer, innermost)

    def _outer_loops(self, axes: Sequence[int], body: Callable[[dict[int, Expr]], Stmt]) -> Stmt:
        """``body(places)`` in a loop over each axis."""

        def nest(level: int, places: dict[int, Expr]) -> Stmt:
            if level == len(axes):
                return body(places)
            axis = axes[level]
            return serial(
                "o", self.loops.shape[axis], lambda o: nest(level + 1, {**places, axis: o})
            )

        return nest(0, {})

    # --- vectors along a reduced axis ------------------------------------------------------------

    def _along_reduced(self, kept: dict[int, Expr]) -> Stmt:
        """One output element: lanes hold partial results, which are combined at the end."""
        lane = self.loops.lane
        outer = [axis for axis in self.loops.reduced if axis != lane]
        extent = self.loops.shape[lane] if lane is not None else 1
        widths = run_widths(extent, self.lanes)
        totals = [{w: self._accumulator(r, w, "total") for w in widths} for r in self.reductions]

        def term(places: dict[int, Expr], at: Expr, width: int) -> Stmt:
            values = Values(self.buffers, self.inside)
            index = self._index(
                {**kept, **places, **({lane: at} if lane is not None else {})}, width
            )
            stores = [
                accumulate(totals[r][width], reduction, values.value(reduction.source, index))
                for r, reduction in enumerate(self.reductions)
            ]
            return values.flushed(*stores)

        def line(places: dict[int, Expr]) -> Stmt:
            return block(*pieces(extent, self.lanes, lambda at, w: term(places, at, w)))

        clear = [
            _reset(totals[r][w], reduction, w)
            for r, reduction in enumerate(self.reductions)
            for w in widths
        ]
        statements, results = self._folded(totals, widths)
        buffers = [b for group in totals for b in group.values()]
        finish = self._finish(kept, None, 1, results)
        return block(
            *map(allocate, buffers), *clear, self._outer_loops(outer, line), *statements, finish
        )

    def _folded(
        self, totals: list[dict[int, Buffer]], widths: list[int]
    ) -> tuple[list[Stmt], list[Expr]]:
        statements: list[Stmt] = []
        results: list[Expr] = []
        for reduction, group in zip(self.reductions, totals, strict=True):
            scalars = []
            for width in widths:
                total, bind = bound("lanes", _read(group[width]))
                folds, scalar = fold(total, width, reduction.combine)
                statements += [bind, *folds]
                scalars.append(scalar)
            joins, result = joined(scalars, reduction.combine)
            statements += joins
            results.append(result)
        return statements, results

    # --- shared ----------------------------------------------------------------------------------

    def _finish(
        self, kept: dict[int, Expr], lane: int | None, width: int, results: list[Expr]
    ) -> Stmt:
        """The fused tail of finished reductions, and the stores."""
        values = Values(self.buffers, self.inside)
        for reduction, result in zip(self.reductions, results, strict=True):
            values.known(reduction.node, result)
        first = self.reductions[0]
        axes: Any = first.node.args[1]
        keepdims = bool(first.node.args[2]) if len(first.node.args) > 2 else False
        place: list[Expr] = []
        moved: int | None = None
        for axis in range(len(self.loops.shape)):
            if axis in axes and not keepdims:
                continue
            if axis == lane:
                moved = len(place)
            place.append(const(0) if axis in axes else kept.get(axis, const(0)))
        index = Index(tuple(place), moved, width)
        return values.flushed(*values.stores(self.stored, type_of(first.node).shape, index))

    def _index(self, places: Mapping[int, Expr], width: int) -> Index:
        rank = len(self.loops.shape)
        return Index(tuple(places.get(a, const(0)) for a in range(rank)), self.loops.lane, width)

    @staticmethod
    def _accumulator(reduction: Reduction, lanes: int, name: str) -> Buffer:
        return tirx.decl_buffer((1,), reduction.local_dtype(lanes), name=name, scope="local")


def _read(total: Buffer) -> Expr:
    return tirx.BufferLoad(total, [const(0)])


def _reset(total: Buffer, reduction: Reduction, lanes: int) -> Stmt:
    return tirx.BufferStore(total, reduction.neutral(lanes), [const(0)])
