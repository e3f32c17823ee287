"""What a unit of a contraction asks for ahead of its use, between sums that hide the wait."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from tvm import tirx

from pockengine.lower.nest import Expr, Stmt, block, const, prefetch, serial, when
from pockengine.lower.operand_copies import OperandCopies
from pockengine.lower.pack import Steps
from pockengine.lower.register_tiles import LINE
from pockengine.lower.unit_loops import Panel

Ahead: TypeAlias = tuple[int, Callable[[Expr], list[Stmt]]]
"""So many groups of prefetches, and each of them by its number."""

_FEW_ROWS = 16  # too few to hide the wait for the columns,
_MANY_ROWS = 256  # so many that copying these is little beside the products
_MOST_PARTS = 16  # of a reduction between which a tile's share of them is asked for


class Prefetches(OperandCopies):
    """The prefetches of a unit's register tiles; they never change a result.

    Attributes:
        first: whether sums begin with the piece of the reduction at hand; where there is but one,
            they begin and end with it.
        last: whether they end with it.
    """

    first: bool | Expr = True
    last: bool | Expr = True

    def _accumulate(
        self, steps: Steps, ahead: Sequence[Ahead], multiply: Callable[[Steps], Stmt]
    ) -> Stmt:
        """``multiply(part)`` part by part of the reduction, each behind a share of the prefetches.

        A core waits for a few cache lines at a time: many prefetches at once would stop it.
        """
        ahead = [(count, lines) for count, lines in ahead if lines(const(0))]
        if not ahead:
            return multiply(steps)
        most = max(count for count, _ in ahead)
        parts, part, rest = steps.parts(most, self.geometry.unrolled)

        def run(number: Expr) -> Stmt:
            prefetches: list[Stmt] = []
            for count, lines in ahead:
                share = math.ceil(count / parts)
                first = number * const(share)
                for i in range(share):
                    prefetches += lines(tirx.min(first + const(i), const(count - 1)))
            return block(*prefetches, multiply(part(number)))

        looped = serial("part", parts, run)
        return looped if rest is None else block(looped, multiply(rest))

    def _ahead(self, panel: Panel, row: Expr, height: int, steps: Steps) -> list[Ahead]:
        """What a tile asks for: its tail where sums end, else its share of the next piece."""
        tail = [self._tail_ahead(panel, row, height)]
        if self.last is True:
            return [*tail, *self._next_group(panel, row)]
        following = self._next_piece(panel, row, steps)
        if self.last is False:
            return following
        kept = tirx.Not(self.last)
        return [*(_under(kept, x) for x in following), *(_under(self.last, x) for x in tail)]

    def _tail_ahead(self, panel: Panel, row: Expr, height: int) -> Ahead:
        """What each row's tail touches, a cache line at a time."""

        def lines(i: Expr) -> list[Stmt]:
            return [
                statement
                for start, lanes in zip(panel.starts, panel.lanes, strict=True)
                if start % LINE == 0
                for statement in self.work.prefetch(
                    self.batch, row + i, panel.column + const(start), lanes
                )
            ]

        return height, lines

    def _next_rows(self, row: Expr, height: int) -> Callable[[tuple[Expr, ...]], list[Stmt]]:
        """A line, each step, of the left rows that the next register tile will read.

        The processor's own prefetching does not reach them: short rows, several at once.
        """
        left = self.term.left
        if left.packed or math.prod(self.term.reduction) < LINE:
            return lambda _: []
        if left.dense:
            first = left.base(self.batch, row + const(height))
            return lambda k: [prefetch(left.buffer, first + left.offset(k) * const(height))]
        if left.adjacent and self.geometry.left_lanes == 1:
            first = left.base(self.batch, row + const(LINE))
            return lambda k: [prefetch(left.buffer, first + left.offset(k))]
        return lambda _: []

    def _next_piece(self, panel: Panel, row: Expr, steps: Steps) -> list[Ahead]:
        """A tile's share of what the next piece of the reduction copies.

        The tiles of a unit take turns at the piece's steps, or at its columns where these lie along
        the steps.
        """
        length, geometry = self._length(steps), self.geometry
        copies = self.term.left.packed or not self.term.right.direct
        at_once = geometry.packed_panels == geometry.group_panels
        if length is None or not copies or not at_once:
            return []
        turn, turns = self._turn(panel, row)
        following = self._first_step(steps) + const(length)
        first, columns = self._unit_columns()
        found: list[Ahead] = []
        for i in range(math.ceil(length / turns)):
            k = self._step_at(following + turn + const(i * turns))
            if self.term.left.packed:
                found.append(self._left_row_ahead(k))
            if not self.term.right.direct and not self.term.right.along_reduction:
                found.append(self._right_row_ahead(k))
        if self.term.right.along_reduction:
            for i in range(math.ceil(columns / turns)):
                column = first + turn + const(i * turns)
                found.append(self._right_column_ahead(column, following, length))
        return found

    def _next_group(self, panel: Panel, row: Expr) -> list[Ahead]:
        """A tile's share of the columns that the next group of panels copies.

        The tiles of a unit take turns at the steps, or at the columns where the steps are
        neighbours.
        """
        right, geometry = self.term.right, self.geometry
        follows = geometry.groups > 1 and (geometry.columns_first or geometry.row_blocks == 1)
        if right.direct or not follows or not _FEW_ROWS <= self.work.rows < _MANY_ROWS:
            return []
        first, columns = self._unit_columns()
        if not self._right_ahead(self._step_at(const(0)), first):
            return []
        turn, turns = self._turn(panel, row)
        first, steps = first + const(columns), math.prod(self.term.reduction)
        places, length = (columns, steps) if right.along_reduction else (steps, columns)
        mine = math.ceil(places / turns)
        together = math.ceil(mine / _MOST_PARTS)

        def line(number: Expr, piece: Expr) -> Stmt:
            place, along = turn + number * const(turns), piece * const(LINE)
            step, column = (along, place) if right.along_reduction else (place, along)
            return block(*self._right_ahead(self._step_at(step), first + column))

        def place_ahead(number: Expr) -> Stmt:
            return serial("line", math.ceil(length / LINE), lambda piece: line(number, piece))

        def lines(number: Expr) -> list[Stmt]:
            start = number * const(together)
            return [serial("ahead", together, lambda i: place_ahead(start + i))]

        return [(math.ceil(mine / together), lines)]

    def _turn(self, panel: Panel, row: Expr) -> tuple[Expr, int]:
        """The number of a register tile among those of its unit, and how many these are."""
        tiles = self.geometry.block_tiles + bool(self.geometry.row_tail)
        turn = panel.position * const(tiles)
        turn = turn + tirx.truncdiv(row - self.first_row, const(self.geometry.row_tile))
        return turn, self.geometry.group_panels * tiles

    def _length(self, steps: Steps) -> int | None:
        """Steps of a piece, if all have as many and there are several."""
        length = 1
        for extent in steps.extents:
            if not isinstance(extent, int):
                return None
            length *= extent
        return length if length < math.prod(self.term.reduction) else None

    def _first_step(self, steps: Steps) -> Expr:
        """The number of a piece's first step within the whole reduction."""
        number = const(0)
        inner = [const(0)] * (len(steps.extents) - 1)
        for place, extent in zip(
            (*steps.outer, steps.start, *inner), self.term.reduction, strict=True
        ):
            number = number * const(extent) + place
        return number

    def _step_at(self, number: Expr) -> tuple[Expr, ...]:
        """The reduction variables of a step; the last one's for what is beyond."""
        *outer, _ = extents = self.term.reduction
        rest = tirx.min(number, const(math.prod(extents) - 1))
        places: list[Expr] = []
        for extent in reversed(extents[1:]):
            places.append(tirx.truncmod(rest, const(extent)))
            rest = tirx.truncdiv(rest, const(extent))
        return (rest, *reversed(places)) if outer else (rest,)

    def _left_row_ahead(self, k: tuple[Expr, ...]) -> Ahead:
        """The unit's rows at a step."""
        left = self.term.left
        first = left.base(self.batch, self.first_row) + left.offset(k)
        count = math.ceil(self.geometry.block_rows / LINE)
        return count, lambda i: [prefetch(left.buffer, first + i * const(LINE))]

    def _right_row_ahead(self, k: tuple[Expr, ...]) -> Ahead:
        """The unit's columns at a step."""
        first, columns = self._unit_columns()
        return math.ceil(columns / LINE), lambda i: self._right_ahead(k, first + i * const(LINE))

    def _right_column_ahead(self, column: Expr, number: Expr, length: int) -> Ahead:
        """A piece's steps, from that with a number on, of a column."""
        return math.ceil(length / LINE), lambda i: self._right_ahead(
            self._step_at(number + i * const(LINE)), column
        )

    def _unit_columns(self) -> tuple[Expr, int]:
        """The first of the unit's columns, and how many it has at most."""
        columns = self.geometry.group_panels * self.geometry.panel_columns
        return self.group * const(columns), columns

    def _right_ahead(self, k: tuple[Expr, ...], column: Expr) -> list[Stmt]:
        last = const(self.work.columns - 1)
        return self.term.right.prefetch(self.batch, k, tirx.min(column, last))


def _under(condition: Expr, ahead: Ahead) -> Ahead:
    """Prefetches under a condition."""
    count, lines = ahead

    def some(number: Expr) -> list[Stmt]:
        found = lines(number)
        return [when(condition, block(*found))] if found else []

    return count, some
