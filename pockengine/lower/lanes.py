"""Elements of a contraction's left operand, as lanes of the vectors they are loaded by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tvm import tirx

from pockengine.lower.nest import Buffer, Expr, Stmt, bound, const, load, splat

Distance = Callable[[Expr, Expr], int | None]
"""How far the first place is from the second, where that is a constant."""


@dataclass(frozen=True, slots=True)
class Element:
    """An element of the left operand: a lane of what was loaded, and what to do ahead of it."""

    loaded: Expr
    lane: int
    lanes: int
    ahead: tuple[Stmt, ...] = ()

    def everywhere(self, lanes: int) -> Expr:
        """The element in each of ``lanes`` lanes."""
        if self.lanes == 1:
            return splat(self.loaded, lanes)
        return splat(tirx.Shuffle([self.loaded], [const(self.lane)]), lanes)


def steps_of_rows(
    source: Buffer, places: Sequence[Expr], lanes: int
) -> tuple[list[Stmt], list[list[Element]]]:
    """``lanes`` neighbouring steps of each row: the loads, and the rows' elements step by step.

    Args:
        source: the left operand.
        places: of each row's first element.
        lanes: steps to load.
    """
    loads = [bound("left", load(source, place, lanes)) for place in places]
    steps = [[Element(row, lane, lanes) for row, _ in loads] for lane in range(lanes)]
    return [statement for _, statement in loads], steps


def rows_of_step(
    source: Buffer, places: Sequence[Expr], lanes: int, distance: Distance
) -> list[Element]:
    """One step's element of each row: by vectors where rows are neighbours, else one by one.

    Args:
        source: the left operand, or its packed rows.
        places: of each row's element.
        lanes: rows to load at once, at most.
        distance: tells neighbours.
    """
    elements: list[Element] = []
    while len(elements) < len(places):
        rest, width = places[len(elements) :], lanes
        while width > len(rest) or any(distance(rest[i], rest[0]) != i for i in range(1, width)):
            width //= 2
        found, statement = bound("left", load(source, rest[0], width))
        elements.append(Element(found, 0, width, (statement,)))
        elements += [Element(found, lane, width) for lane in range(1, width)]
    return elements
