"""The copies that a unit of a contraction makes of its operands, to read them front to back.

Blocking with copies of both operands follows Goto and van de Geijn, "Anatomy of High-Performance
Matrix Multiplication" (2008), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from pockengine.lower.nest import Buffer, Expr, Stmt, block, const, load, store, when
from pockengine.lower.pack import Steps, copy_columns, pack_along_columns, pack_along_reduction
from pockengine.lower.register_tiles import LINE, vector_pieces
from pockengine.lower.summed import Contraction
from pockengine.lower.tiles import Geometry
from pockengine.lower.unit_loops import Panel, UnitLoops

LEFT_PADDING = 2  # steps, so that the packed tiles of rows do not all meet the same cache sets


class OperandCopies(UnitLoops):
    """The copies of a unit.

    Args:
        work: what is summed.
        geometry: how it is cut up.
        unit: the unit's number.
        begin: that of the first unit of the range at hand.
        left_rows: scratch for rows of the left operand, which several units may share.
    """

    def __init__(
        self, work: Contraction, geometry: Geometry, unit: Expr, begin: Expr, left_rows: Buffer
    ) -> None:
        super().__init__(work, geometry, unit, begin)
        self.left_rows = left_rows
        self.panel_elements = self.steps * geometry.panel_columns
        self.packed, self.new_packed = self._scratch(
            "packed", geometry.packed_panels * self.panel_elements
        )

    def _if_new_rows(self, body: Stmt) -> Stmt:
        """``body`` unless the unit before had the same rows."""
        several = self.geometry.whole_columns and self.geometry.row_blocks > 1
        if several or not self.geometry.columns_first or self.geometry.groups == 1:
            return body
        first = tirx.Or(tirx.EQ(self.unit, self.begin), tirx.EQ(self.group, const(0)))
        return when(first, body)

    def _pack_left(self, steps: Steps) -> Stmt:
        """The unit's rows of the left operand, copied to [register tile][step][row].

        Step by step, as whole lines are read then; rows that lie along the steps are transposed.
        """
        if self.work.left.along_steps:
            return self._rows(lambda row, height: self._pack_left_tile(steps, row, height))
        return steps.loops(
            lambda k, step: self._rows(lambda row, height: self._copy_rows(row, height, k, step))
        )

    def _copy_rows(self, row: Expr, height: int, k: tuple[Expr, ...], step: Expr) -> Stmt:
        """One step of a tile's rows."""
        left, at, copies = self.work.left, 0, []
        origin = left.base(self.batch, row) + left.offset(k)
        goal = self._left_tile(row) + step * const(height)
        for lanes in vector_pieces(height, LINE):
            value = load(left.buffer, origin + const(at), lanes)
            copies.append(store(self.left_rows, goal + const(at), value, lanes))
            at += lanes
        return block(*copies)

    def _pack_left_tile(self, steps: Steps, row: Expr, height: int) -> Stmt:
        """A register tile's rows, which lie along the steps, transposed in registers."""
        left = self.work.left
        return pack_along_reduction(
            self.left_rows,
            self._left_tile(row),
            vector_pieces(height, self.geometry.left_lanes),
            steps,
            lambda k, at, lanes: load(
                left.buffer, left.base(self.batch, row + at) + left.offset(k), lanes
            ),
        )

    def _left_tile(self, row: Expr) -> Expr:
        """Where the packed rows of the register tile that begins at ``row`` lie."""
        return (row - self.first_row) * const(self.steps + LEFT_PADDING)

    def _pack_group(self, steps: Steps) -> Stmt:
        """The copies of all panels; step by step, as whole lines are read then."""
        if self.term.right.along_reduction:
            return block(*self._panels(lambda panel: self._pack(panel, steps)))
        return steps.loops(
            lambda k, step: block(
                *self._panels(
                    lambda panel: copy_columns(
                        self.packed,
                        self._packed_at(panel) + step * const(sum(panel.lanes)),
                        panel.lanes,
                        lambda at, lanes: self._right(panel, k, at, lanes),
                    )
                )
            )
        )

    def _pack(self, panel: Panel, steps: Steps) -> Stmt:
        """The copy of a panel's piece of the right operand."""
        pack = pack_along_reduction if self.term.right.along_reduction else pack_along_columns
        return pack(
            self.packed,
            self._packed_at(panel),
            panel.lanes,
            steps,
            lambda k, column, lanes: self._right(panel, k, column, lanes),
        )

    def _right(self, panel: Panel, k: Sequence[Expr], column: Expr, lanes: int) -> Expr:
        return self.term.right.value(self.batch, k, panel.column + column, lanes)

    def _packed_at(self, panel: Panel) -> Expr:
        if self.geometry.packed_panels == 1:
            return const(0)
        return panel.position * const(self.panel_elements)
