"""One loop nest for matmul, convolution, their input gradients and their weight gradients.

    out[b, m, n] = sum over k of left(b, m, k) * right(b, k, n)        float32

and the same of further operands, added up. A unit of work is a row block by a group of column
panels. Inside, register tiles of ``row_tile`` rows by a panel's vectors accumulate over the
reduction loops: one vector load per panel vector and one broadcast per row feed
``row_tile * vectors`` fused multiply-adds. The blocking follows Goto and van de Geijn, "Anatomy of
High-Performance Matrix Multiplication" (2008), section 4, without the copy of ``left``; long
reductions, and several, are cut into chunks that accumulate in a scratch tile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import sym, tirx

from pockengine.lower.column_sums import AddedColumns
from pockengine.lower.lanes import Element, rows_of_step, steps_of_rows
from pockengine.lower.nest import (
    Buffer,
    Expr,
    Stmt,
    aligned,
    allocate,
    block,
    bound,
    const,
    load,
    local,
    serial,
    store,
    when,
    zeros,
)
from pockengine.lower.operand_copies import LEFT_PADDING
from pockengine.lower.pack import Steps
from pockengine.lower.prefetches import Prefetches
from pockengine.lower.register_tiles import LINE
from pockengine.lower.summed import Contraction
from pockengine.lower.tiles import Geometry
from pockengine.lower.unit_loops import Panel, steps_at_once


def contraction(work: Contraction, geometry: Geometry, begin: Expr, end: Expr) -> Stmt:
    """Units ``begin .. end`` of ``geometry.extent``; any split of the range gives the same bits."""
    rows, declare_rows = aligned(
        "rows",
        (steps_at_once(work, geometry) + LEFT_PADDING) * geometry.block_rows,
        max((*geometry.panel, *geometry.tail)),
    )
    units = serial(
        "unit", end - begin, lambda unit: _Unit(work, geometry, unit, begin, rows).emit(), begin
    )
    return block(*declare_rows, units) if work.left.packed else units


class _Unit(Prefetches):
    """Emission of one unit: a row block by a group of panels."""

    def __init__(
        self, work: Contraction, geometry: Geometry, unit: Expr, begin: Expr, left_rows: Buffer
    ) -> None:
        super().__init__(work, geometry, unit, begin, left_rows)
        self.analyzer = sym.Analyzer()
        self.sums, self.new_sums = self._scratch(
            "sums", geometry.group_panels * geometry.block_rows * geometry.panel_columns
        )
        self.added = AddedColumns(work.column_sums, geometry) if work.column_sums else None

    def emit(self) -> Stmt:
        """The whole unit."""
        if not all(term.right.direct for term in self.work.terms):
            self.prologue += self.new_packed
        if self.geometry.chunk:
            self.prologue += self.new_sums
        if self.added is None:
            return block(*self.prologue, *self._block_of_rows())
        return block(
            *self.prologue,
            *self.added.new,
            self.added.clear(),
            serial("block", self.geometry.row_blocks, self._next_block),
            *self._panels(self._finish_columns),
        )

    def _next_block(self, number: Expr) -> Stmt:
        """The rows of one block, of a unit that has several."""
        self._enter(number)
        return block(*self._block_of_rows())

    def _block_of_rows(self) -> list[Stmt]:
        """All products of a row block."""
        if not self.geometry.chunk:
            steps = Steps((), const(0), self.work.reduction)
            packs = [self._if_new_rows(self._pack_left(steps))] if self.work.left.packed else []
            return [*packs, *self._multiply_all(steps)]
        return list(map(self._add_term, self.work.terms))

    def _add_term(self, term: Contraction) -> Stmt:
        """One product added to the sums, piece by piece."""
        self.term = term

        def piece(steps: Steps, first: Expr, last: Expr) -> Stmt:
            self.first = first if term is self.work.terms[0] else False
            self.last = last if term is self.work.terms[-1] else False
            rows = [self._pack_left(steps)] if term.left.packed else []
            return block(*rows, *self._multiply_all(steps))

        return self._chunks(piece)

    def _multiply_all(self, steps: Steps) -> list[Stmt]:
        """The unit's share of one piece of the reduction."""
        if self.geometry.packed_panels > 1:
            return self._multiply_group(steps)
        return self._panels(lambda panel: self._multiply(panel, steps))

    def _multiply(self, panel: Panel, steps: Steps) -> Stmt:
        """All register tiles of the block for one panel and one piece of the reduction."""
        packs = [] if self.term.right.direct else [self._pack(panel, steps)]
        return block(*packs, *self._add_right(panel, steps), self._tiles(panel, steps))

    def _multiply_group(self, steps: Steps) -> list[Stmt]:
        """All panels of the group, packed at once.

        Of a whole reduction a tile of rows stays near, and what follows the sums meets neighbouring
        columns; of a piece a panel stays near.
        """
        packs = [] if self.term.right.direct else [self._pack_group(steps)]
        if self.added is not None:
            packs += self._panels(lambda panel: block(*self._add_right(panel, steps)))
        if self.geometry.chunk:
            return [*packs, *self._panels(lambda panel: self._tiles(panel, steps))]

        def tiles(row: Expr, height: int) -> Stmt:
            return block(*self._panels(lambda panel: self._tile(panel, steps, row, height)))

        return [*packs, self._rows(tiles)]

    def _tiles(self, panel: Panel, steps: Steps) -> Stmt:
        return self._rows(lambda row, height: self._tile(panel, steps, row, height))

    def _tile(self, panel: Panel, steps: Steps, row: Expr, height: int) -> Stmt:
        """One register tile: start, accumulate, finish."""
        sums = [local(f"acc{i}", height, lanes) for i, lanes in enumerate(panel.lanes)]
        prologue, bases = self._bases(row, height)
        next_rows = self._next_rows(row, height)
        dense = self.geometry.unrolled > 1 and self.term.left.dense
        apart = max(1, LINE // height) if dense else 1  # steps a line of the next tile lasts
        flat = self.term.left.packed and not self.term.right.direct
        accumulate = self._accumulate(
            steps.flat() if flat else steps,
            self._ahead(panel, row, height, steps),
            lambda part: part.unrolled(
                self.geometry.unrolled,
                lambda some: block(
                    *(each for k, _ in some[::apart] for each in next_rows(k)),
                    self._steps(panel, sums, bases, some),
                ),
            ),
        )
        start, end = self._start(panel, sums, row, height), self._end(panel, sums, row, height)
        return block(*map(allocate, sums), *prologue, *start, accumulate, *end)

    def _start(self, panel: Panel, sums: list[Buffer], row: Expr, height: int) -> list[Stmt]:
        """What a register tile's sums begin with: nothing, or what was kept of the piece before."""
        cells = _cells(panel, height)

        def clear() -> list[Stmt]:
            return [store(sums[v], const(i), zeros(panel.lanes[v])) for i, v in cells]

        def resume() -> list[Stmt]:
            return [store(sums[v], const(i), self._kept(panel, row, i, v)) for i, v in cells]

        return _either(self.first, clear, resume)

    def _end(self, panel: Panel, sums: list[Buffer], row: Expr, height: int) -> list[Stmt]:
        """What becomes of a register tile's sums: they are kept for the next piece, or finished."""
        cells = _cells(panel, height)

        def finish() -> list[Stmt]:
            if self.work.compact_store:
                stores = self._finish_in_loop(panel, sums, row, height)
            else:
                stores = [
                    self._store(panel, row + const(i), v, load(sums[v], const(i))) for i, v in cells
                ]
            if self.added is None:
                return stores
            place = (panel.position, panel.starts, panel.lanes)
            return [*self.added.clear_parts(*place), *stores, *self.added.join_parts(*place)]

        def keep() -> list[Stmt]:
            return [self._keep(panel, row, i, v, load(sums[v], const(i))) for i, v in cells]

        return _either(self.last, finish, keep)

    def _bases(self, row: Expr, height: int) -> tuple[list[Stmt], list[Expr]]:
        """Offset of each row of ``left``, as a constant from the first row's where that is one."""
        base = self.term.left.base
        if self.term.left.packed:
            first, statement = bound("base", self._left_tile(row))
            return [statement], [first + const(i) for i in range(height)]
        first, statement = bound("base", base(self.batch, row))
        statements, bases = [statement], [first]
        stride = self._tile_stride()
        for i in range(1, height):
            value = base(self.batch, row + const(i))
            distance = i * stride if stride else self._distance(value, base(self.batch, row))
            if distance is not None:
                bases.append(first + const(distance))
            else:
                variable, statement = bound("base", value)
                statements.append(statement)
                bases.append(variable)
        return statements, bases

    def _tile_stride(self) -> int | None:
        """Elements between neighbouring rows where no tile crosses a period of the rows."""
        period, base = self.term.row_period, self.term.left.base
        if self.geometry.left_lanes == 1 or period % self.geometry.row_tile:
            return None
        return self._distance(base(self.batch, const(1)), base(self.batch, const(0)))

    def _steps(
        self,
        panel: Panel,
        sums: list[Buffer],
        bases: list[Expr],
        some: Sequence[tuple[tuple[Expr, ...], Expr]],
    ) -> Stmt:
        """Neighbouring steps of the reduction for a whole register tile."""
        lanes, left = self.geometry.left_lanes, self.term.left
        by_steps = left.along_steps and not left.packed
        if lanes == 1 or len(some) % lanes or not by_steps:
            return block(*(self._step(panel, sums, bases, k, step) for k, step in some))
        statements: list[Stmt] = []
        for first in range(0, len(some), lanes):
            offset = left.offset(some[first][0])
            loads, found = steps_of_rows(left.buffer, [base + offset for base in bases], lanes)
            statements += loads
            for (k, step), elements in zip(some[first : first + lanes], found, strict=True):
                statements.append(self._step(panel, sums, bases, k, step, elements))
        return block(*statements)

    def _distance(self, value: Expr, first: Expr) -> int | None:
        """How far one place is from another, where that is a constant."""
        found = self.analyzer.simplify(value - first)
        return int(found) if isinstance(found, tirx.IntImm) else None

    def _step(
        self,
        panel: Panel,
        sums: list[Buffer],
        bases: list[Expr],
        k: tuple[Expr, ...],
        step: Expr,
        elements: Sequence[Element] = (),
    ) -> Stmt:
        """One step of the reduction for a whole register tile."""
        statements: list[Stmt] = []
        vectors = []
        for start, lanes in zip(panel.starts, panel.lanes, strict=True):
            variable, statement = bound("right", self._vector(panel, k, step, start, lanes))
            vectors.append(variable)
            statements.append(statement)
        left = self.term.left
        if left.packed:
            source, offset = self.left_rows, step * const(len(bases))
        else:
            source, offset = left.buffer, left.offset(k)
        lanes = self.geometry.left_lanes
        elements = elements or rows_of_step(
            source, [base + offset for base in bases], lanes, self._distance
        )
        for i, element in enumerate(elements):
            statements += element.ahead
            for total, vector, lanes in zip(sums, vectors, panel.lanes, strict=True):
                term = element.everywhere(lanes) * vector
                statements.append(store(total, const(i), load(total, const(i)) + term))
        return block(*statements)

    def _vector(
        self, panel: Panel, k: tuple[Expr, ...], step: Expr, start: int, lanes: int
    ) -> Expr:
        if self.term.right.direct:
            return self.term.right.value(self.batch, k, panel.column + const(start), lanes)
        place = self._packed_at(panel) + step * const(sum(panel.lanes)) + const(start)
        return load(self.packed, place, lanes)

    def _store(self, panel: Panel, row: Expr, vector: int, value: Expr) -> Stmt:
        start, lanes = panel.starts[vector], panel.lanes[vector]
        place = (self.batch, row, panel.column + const(start), lanes)
        if self.added is None:
            return self.work.store(*place, value)
        return self.added.columns.store(
            *place, value, self.added.adding(panel.position, start, lanes)
        )

    def _add_right(self, panel: Panel, steps: Steps) -> list[Stmt]:
        """A panel's piece of the right operand, added up once for all row blocks."""
        if self.added is None or not self.added.columns.of_right:
            return []
        added = self.added.right(
            panel.position,
            panel.starts,
            panel.lanes,
            steps if self.term.right.direct else steps.flat(),
            lambda k, step, start, lanes: self._vector(panel, tuple(k), step, start, lanes),
        )
        if self.geometry.row_blocks == 1:
            return [added]
        return [when(tirx.EQ(self.block, const(0)), added)]

    def _finish_columns(self, panel: Panel) -> Stmt:
        """What follows the sums of a panel's columns."""
        assert self.added is not None
        columns, read = self.added.columns, self.added.read
        return block(
            *(
                columns.finish(
                    self.batch,
                    panel.column + const(start),
                    lanes,
                    [read(n, panel.position, start, lanes) for n in range(columns.count)],
                )
                for start, lanes in zip(panel.starts, panel.lanes, strict=True)
            )
        )

    def _finish_in_loop(
        self, panel: Panel, sums: list[Buffer], row: Expr, height: int
    ) -> list[Stmt]:
        """Accumulators to a small tile, then a loop over its rows with one copy of the tail."""
        width = sum(panel.lanes)
        tile, new_tile = self._scratch("tile", height * width)
        spill = [
            store(tile, const(i * width + start), load(total, const(i)), lanes)
            for i in range(height)
            for total, start, lanes in zip(sums, panel.starts, panel.lanes, strict=True)
        ]

        def finish(i: Expr) -> Stmt:
            return block(
                *(
                    self._store(
                        panel, row + i, v, load(tile, i * const(width) + const(start), lanes)
                    )
                    for v, (start, lanes) in enumerate(zip(panel.starts, panel.lanes, strict=True))
                )
            )

        return [*new_tile, *spill, serial("row", height, finish)]

    def _place(self, panel: Panel, row: Expr, vector: int) -> Expr:
        """Where the unit's scratch holds a row's vector."""
        geometry = self.geometry
        first = self.block * const(geometry.block_tiles * geometry.row_tile)
        line = panel.position * const(geometry.block_rows) + row - first
        return line * const(geometry.panel_columns) + const(panel.starts[vector])

    def _kept(self, panel: Panel, row: Expr, i: int, vector: int) -> Expr:
        return load(self.sums, self._place(panel, row + const(i), vector), panel.lanes[vector])

    def _keep(self, panel: Panel, row: Expr, i: int, vector: int, value: Expr) -> Stmt:
        place = self._place(panel, row + const(i), vector)
        return store(self.sums, place, value, panel.lanes[vector])


def _cells(panel: Panel, height: int) -> list[tuple[int, int]]:
    """(row, vector) of each accumulator of a register tile."""
    return [(i, v) for i in range(height) for v in range(len(panel.lanes))]


def _either(
    condition: bool | Expr, yes: Callable[[], list[Stmt]], no: Callable[[], list[Stmt]]
) -> list[Stmt]:
    """The one or the other; both where only a run knows."""
    if isinstance(condition, bool):
        return yes() if condition else no()
    return [tirx.IfThenElse(condition, block(*yes()), block(*no()))]
