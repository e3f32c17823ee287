"""What a contraction sums: its two operands, its loops, what happens to a sum.

out[b, m, n] = sum over k of left(b, m, k) * right(b, k, n)        float32
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pockengine.lower.nest import Buffer, Expr, Stmt
from pockengine.lower.tile_parameters import TileParameters
from pockengine.lower.tiles import Geometry, contraction_geometry


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """The operand whose elements are broadcast: left(b, m, k) = buffer[base(b, m) + offset(k)].

    Attributes:
        buffer: flat float32 buffer.
        base: (batch, row) -> element offset; evaluated once per row of a tile.
        offset: reduction variables -> element offset, common to all rows.
        packed: rows lie next to each other but steps far apart (a transposed operand): a unit first
            copies its rows to a scratch of [step][row], which all its panels read.
        dense: each row lies in one piece, the next behind it.
        adjacent: rows lie next to each other, as for ``packed``.
        along_steps: the steps of the innermost loop do.
    """

    buffer: Buffer
    base: Callable[[Expr, Expr], Expr]
    offset: Callable[[Sequence[Expr]], Expr]
    packed: bool = False
    dense: bool = False
    adjacent: bool = False
    along_steps: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """The operand that is read as vectors.

    Attributes:
        value: (batch, reduction variables, column, lanes) -> vector. Its lanes are the columns
            ``column ..``, or, if ``along_reduction``, the steps ``k[-1] ..`` of one column.
            ``lanes`` is a power of two up to the vector length; ``column``, or the step, is a
            multiple of it.
        direct: ``value`` is a plain load, contiguous in the columns, and is read in place. Else
            each panel is copied to a scratch once per row block.
        along_reduction: see ``value``; such a panel is transposed while it is copied.
        prefetch: (batch, reduction variables, column) -> statements that ask for the memory of
            ``value`` there.
    """

    value: Callable[[Expr, Sequence[Expr], Expr, int], Expr]
    direct: bool = True
    along_reduction: bool = False
    prefetch: Callable[[Expr, Sequence[Expr], Expr], list[Stmt]] = lambda *_: []


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnSums:
    """What is added up over all rows of a column, beside the products.

    Attributes:
        terms: how many sums there are of what ``store`` computes from a finished product sum.
        of_right: whether the right operand is summed over the reduction as well.
        store: as ``Contraction.store``, in whose place it is used; its last argument
            ``add(number, vector)`` makes the statement that adds to a sum.
        finish: (batch, column, lanes, the ``terms`` sums and then the right operand's) ->
            statement; gets the finished sums of a column.
    """

    terms: int
    of_right: bool
    store: Callable[[Expr, Expr, Expr, int, Expr, Callable[[int, Expr], Stmt]], Stmt]
    finish: Callable[[Expr, Expr, int, list[Expr]], Stmt]

    @property
    def count(self) -> int:
        """All sums of a column."""
        return self.terms + self.of_right


@dataclass(frozen=True, slots=True, kw_only=True)
class Contraction:
    """What is summed and what happens to a sum.

    Attributes:
        batch: independent products.
        rows: M.
        columns: N.
        reduction: extents of the reduction loops, outer to inner.
        left: broadcast operand.
        right: vector operand.
        store: (batch, row, column, lanes, value) -> statement; gets finished sums of the columns
            ``column .. column + lanes``, applies the fused elementwise tail and stores.
        prefetch: (batch, row, column, lanes) -> statements that ask for the memory which ``store``
            will touch; run before a tile's sums, which hide the wait.
        also: what is added to that sum: further products of the same extents, with their own
            operands and reductions, whose tails are not used.
        row_period: rows within which ``left.base`` has one stride (an image line); 0: all.
        compact_store: emit ``store`` once per panel vector in a loop over a tile's rows, not for
            every vector of the tile; for tails of many operations.
        column_sums: sums over all rows, if there are any; only without ``also``.
    """

    batch: int
    rows: int
    columns: int
    reduction: tuple[int, ...]
    left: Left
    right: Right
    store: Callable[[Expr, Expr, Expr, int, Expr], Stmt]
    prefetch: Callable[[Expr, Expr, Expr, int], list[Stmt]] = lambda *_: []
    also: tuple[Contraction, ...] = ()
    row_period: int = 0
    compact_store: bool = False
    column_sums: ColumnSums | None = None

    @property
    def terms(self) -> tuple[Contraction, ...]:
        """All products that are summed."""
        return (self, *self.also)

    def geometry(self, tiles: TileParameters) -> Geometry:
        """How it is cut up on a processor; its ``extent`` is the kernel's range."""
        return contraction_geometry(
            tiles,
            batch=self.batch,
            rows=self.rows,
            columns=self.columns,
            reduction=max(math.prod(term.reduction) for term in self.terms),
            packed=not all(term.right.direct for term in self.terms),
            blocked=self.left.packed,
            row_period=self.row_period,
            in_pieces=bool(self.also),
            along_steps=self.left.along_steps,
            whole_columns=self.column_sums is not None,
        )
