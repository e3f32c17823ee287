"""The loops of one unit of a contraction: its row tiles, column panels and pieces of the reduction.

A unit of work is a row block by a group of column panels (``tiles.Geometry``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from tvm import tirx

from pockengine.lower.nest import Buffer, Expr, Stmt, aligned, block, bound, const, serial, when
from pockengine.lower.pack import Steps
from pockengine.lower.summed import Contraction
from pockengine.lower.tiles import Geometry


def steps_at_once(work: Contraction, geometry: Geometry) -> int:
    """Reduction steps of a piece, which are copied together."""
    return geometry.chunk or math.prod(work.reduction)


@dataclass(frozen=True, slots=True)
class Panel:
    """Neighbouring columns: the first, the vectors' lanes, the position within the unit."""

    column: Expr
    lanes: tuple[int, ...]
    position: Expr

    @property
    def starts(self) -> list[int]:
        """The first column of each vector, within the panel."""
        return [sum(self.lanes[:i]) for i in range(len(self.lanes))]


class UnitLoops:
    """Where a unit lies, and the loops over its parts.

    Args:
        work: what is summed.
        geometry: how it is cut up.
        unit: the unit's number.
        begin: that of the first unit of the range at hand.
    """

    def __init__(self, work: Contraction, geometry: Geometry, unit: Expr, begin: Expr) -> None:
        self.work = self.term = work
        self.unit, self.begin = unit, begin
        self.geometry = geometry
        rest, self.block, self.group = unit, const(0), const(0)
        order = ("group", "block") if geometry.columns_first else ("block", "group")
        for name in ("group",) if geometry.whole_columns else order:
            count = geometry.groups if name == "group" else geometry.row_blocks
            if count > 1:
                setattr(self, name, tirx.truncmod(rest, const(count)))
                rest = tirx.truncdiv(rest, const(count))
        self.batch = rest if work.batch > 1 else const(0)
        self.prologue: list[Stmt] = []
        self.batch, self.block, self.group = (
            self._let(name, value)
            for name, value in (("b", self.batch), ("block", self.block), ("group", self.group))
        )
        self.steps = steps_at_once(work, geometry)
        self._enter(self.block)

    def _enter(self, number: Expr) -> None:
        """Turn to a row block."""
        self.block = number
        self.first_row = number * const(self.geometry.block_tiles * self.geometry.row_tile)

    def _scratch(self, name: str, elements: int) -> tuple[Buffer, list[Stmt]]:
        return aligned(name, elements, max((*self.geometry.panel, *self.geometry.tail)))

    def _let(self, name: str, value: Expr) -> Expr:
        if isinstance(value, tirx.IntImm):
            return value
        variable, statement = bound(name, value)
        self.prologue.append(statement)
        return variable

    def _panels(self, body: Callable[[Panel], Stmt]) -> list[Stmt]:
        """``body`` for each panel of the group: a loop over full ones, then the narrow one."""
        geometry, statements = self.geometry, []
        width, per_group = sum(geometry.panel), geometry.group_panels
        first = self.group * const(per_group)
        if geometry.panels:
            count: int | Expr = per_group
            if geometry.panels % per_group or geometry.groups * per_group != geometry.panels:
                count = tirx.max(
                    tirx.min(const(geometry.panels) - first, const(per_group)), const(0)
                )
            statements.append(
                serial(
                    "panel",
                    count,
                    lambda p: body(Panel((first + p) * const(width), geometry.panel, p)),
                )
            )
        if geometry.tail:
            position = const(geometry.panels - (geometry.groups - 1) * per_group)
            narrow = body(Panel(const(geometry.panels * width), geometry.tail, position))
            statements.append(self._if_last(self.group, geometry.groups, narrow))
        return statements

    def _rows(self, body: Callable[[Expr, int], Stmt]) -> Stmt:
        """``body(first row, rows)`` for each register tile of the block."""
        geometry, height = self.geometry, self.geometry.row_tile
        statements = []
        if geometry.row_tiles:
            first = self.block * const(geometry.block_tiles)
            count: int | Expr = geometry.block_tiles
            if geometry.row_tiles % geometry.block_tiles:
                count = tirx.min(const(geometry.row_tiles) - first, const(geometry.block_tiles))
            statements.append(
                serial("tile", count, lambda tile: body(tile * const(height), height), first)
            )
        if geometry.row_tail:
            rest = body(const(geometry.row_tiles * height), geometry.row_tail)
            statements.append(self._if_last(self.block, geometry.row_blocks, rest))
        return block(*statements)

    @staticmethod
    def _if_last(index: Expr, count: int, body: Stmt) -> Stmt:
        return body if count == 1 else when(tirx.EQ(index, const(count - 1)), body)

    def _chunks(self, body: Callable[[Steps, Expr, Expr], Stmt]) -> Stmt:
        """Loops over the pieces of the reduction that are handled at once.

        ``body(steps, whether they are the first, whether they are the last)``.
        """
        extents = self.term.reduction
        level, inner = len(extents) - 1, 1
        while level and inner * extents[level] <= self.geometry.chunk:
            inner *= extents[level]
            level -= 1
        length = max(1, min(extents[level], self.geometry.chunk // inner))
        pieces = -(-extents[level] // length)

        def piece(outer: tuple[Expr, ...], number: Expr) -> Stmt:
            start = number * const(length)
            count: int | Expr = length
            if extents[level] % length:
                count = tirx.min(const(extents[level]) - start, const(length))
            steps = Steps(outer, start, (count, *extents[level + 1 :]))
            places = [*zip(outer, extents, strict=False), (number, pieces)]
            first = [tirx.EQ(place, const(0)) for place, _ in places]
            last = [tirx.EQ(place, const(extent - 1)) for place, extent in places]
            return body(steps, reduce(tirx.And, first), reduce(tirx.And, last))

        def nest(outer: tuple[Expr, ...]) -> Stmt:
            if len(outer) == level:
                return serial("chunk", pieces, lambda c: piece(outer, c))
            return serial("k", extents[len(outer)], lambda k: nest((*outer, k)))

        return nest(())
