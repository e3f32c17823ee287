"""Sums over all rows of a contraction's columns, kept on the stack while a unit of work runs.

A sum is joined from parts, which keeps its rounding error small: of a register tile's rows, or of a
piece of the reduction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pockengine.lower.nest import (
    Buffer,
    Expr,
    Stmt,
    aligned,
    allocate,
    block,
    const,
    load,
    local,
    serial,
    store,
    zeros,
)
from pockengine.lower.pack import Steps
from pockengine.lower.summed import ColumnSums
from pockengine.lower.tiles import Geometry

_CHAINS = 4  # sums that do not wait for each other, of which each has a quarter of the terms


class AddedColumns:
    """The sums of a unit's columns, as a scratch of [number][panel][column].

    Args:
        columns: which sums there are.
        geometry: of the contraction.
    """

    def __init__(self, columns: ColumnSums, geometry: Geometry) -> None:
        self.columns = columns
        self.panel_columns = geometry.panel_columns
        self.group_columns = geometry.group_panels * geometry.panel_columns
        self.lanes = max((*geometry.panel, *geometry.tail))
        self.totals, new_totals = aligned("totals", columns.count * self.group_columns, self.lanes)
        self.parts, new_parts = aligned(
            "parts", max(1, columns.terms) * self.group_columns, self.lanes
        )
        self.new = [*new_totals, *(new_parts if columns.terms else [])]
        """Declares the scratch."""

    def clear(self) -> Stmt:
        """All sums to zero."""
        count = self.columns.count * self.group_columns
        return serial("i", count, lambda i: store(self.totals, i, zeros(1)))

    def read(self, number: int, position: Expr, start: int, lanes: int) -> Expr:
        """A sum of some columns of a panel, given by its position in the unit."""
        return load(self.totals, self._place(number, position, start), lanes)

    def adding(self, position: Expr, start: int, lanes: int) -> Callable[[int, Expr], Stmt]:
        """(number, vector) -> the statement that adds to a part."""

        def add(number: int, value: Expr) -> Stmt:
            place = self._place(number, position, start)
            return store(self.parts, place, load(self.parts, place, lanes) + value, lanes)

        return add

    def clear_parts(
        self, position: Expr, starts: Sequence[int], panel: Sequence[int]
    ) -> list[Stmt]:
        """A panel's parts to zero."""
        cells = self._cells(position, starts, panel)
        return [store(self.parts, place, zeros(lanes), lanes) for place, lanes in cells]

    def join_parts(self, position: Expr, starts: Sequence[int], panel: Sequence[int]) -> list[Stmt]:
        """A panel's parts added to its sums."""
        cells = self._cells(position, starts, panel)
        return [self._join(place, load(self.parts, place, lanes), lanes) for place, lanes in cells]

    def _cells(
        self, position: Expr, starts: Sequence[int], panel: Sequence[int]
    ) -> list[tuple[Expr, int]]:
        return [
            (self._place(number, position, start), lanes)
            for number in range(self.columns.terms)
            for start, lanes in zip(starts, panel, strict=True)
        ]

    def right(
        self,
        position: Expr,
        starts: Sequence[int],
        panel: Sequence[int],
        steps: Steps,
        value: Callable[[Sequence[Expr], Expr, int, int], Expr],
    ) -> Stmt:
        """The right operand's sum, grown by a piece of the reduction.

        Args:
            position: of the panel within the unit.
            starts: first column of each of the panel's vectors.
            panel: their lanes.
            steps: the piece.
            value: (reduction variables, number of the step, start, lanes) -> the operand's vector.
        """
        sums = [local(f"right_sum{i}", _CHAINS, lanes) for i, lanes in enumerate(panel)]
        vectors = list(zip(sums, starts, panel, strict=True))

        def some(taken: Sequence[tuple[tuple[Expr, ...], Expr]]) -> Stmt:
            return block(
                *(
                    store(
                        part,
                        const(chain),
                        load(part, const(chain)) + value(k, number, start, lanes),
                    )
                    for chain, (k, number) in enumerate(taken)
                    for part, start, lanes in vectors
                )
            )

        cells = [(part, chain, lanes) for part, _, lanes in vectors for chain in range(_CHAINS)]
        return block(
            *map(allocate, sums),
            *(store(part, const(chain), zeros(lanes)) for part, chain, lanes in cells),
            steps.unrolled(_CHAINS, some),
            *(
                self._join(self._place(self.columns.terms, position, start), _all(part), lanes)
                for part, start, lanes in vectors
            ),
        )

    def _join(self, place: Expr, part: Expr, lanes: int) -> Stmt:
        return store(self.totals, place, load(self.totals, place, lanes) + part, lanes)

    def _place(self, number: int, position: Expr, start: int) -> Expr:
        first = const(number * self.group_columns + start)
        return position * const(self.panel_columns) + first


def _all(part: Buffer) -> Expr:
    """The sum of all chains."""
    chains = [load(part, const(chain)) for chain in range(_CHAINS)]
    while len(chains) > 1:
        chains = [a + b for a, b in zip(chains[::2], chains[1::2], strict=True)]
    return chains[0]
