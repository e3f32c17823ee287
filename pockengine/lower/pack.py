"""The reduction of a contraction in pieces, and the copy of a piece of its right operand.

A copy is a scratch of [step][column], so that the multiply loop reads it front to back.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tvm import tirx

from pockengine.lower.nest import Buffer, Expr, Stmt, block, bound, const, serial, store

Value = Callable[[Sequence[Expr], Expr, int], Expr]
"""(reduction variables, column within the panel, lanes) -> vector."""


_PART = 2
"""Steps that a part of a reduction has at least."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A piece of the reduction: outer variables, then loops, the first of them from ``start``.

    ``before`` steps of what is copied together come ahead of it.
    """

    outer: tuple[Expr, ...]
    start: Expr
    extents: tuple[int | Expr, ...]
    before: Expr = field(default_factory=lambda: const(0))

    def loops(self, body: Callable[[tuple[Expr, ...], Expr], Stmt]) -> Stmt:
        """``body(reduction variables, number of the step within the piece)`` in nested loops."""
        return self.lines(
            lambda at, step, extent: serial("k", extent, lambda k: body(at(k), step + k))
        )

    def flat(self) -> Steps:
        """One loop over them, for a body that needs but the number of the step."""
        known = [extent for extent in self.extents if isinstance(extent, int)]
        total: int | Expr = math.prod(known)
        for extent in self.extents:
            if not isinstance(extent, int):
                total = extent * const(math.prod(known))
        return Steps((), const(0), (total,))

    def parts(self, most: int, unrolled: int) -> tuple[int, Callable[[Expr], Steps], Steps | None]:
        """At most ``most`` equal parts, along the first loop that has several iterations.

        Args:
            most: how many.
            unrolled: what the number of a part's steps is a multiple of.

        Returns:
            How many, each by its number, and what is left over; nothing is where a number of parts
            near ``most`` divides the loop.
        """
        ones = itertools.takewhile(lambda extent: extent == 1, self.extents[:-1])
        level = sum(1 for _ in ones)
        extent, inner = self.extents[level], self.extents[level + 1 :]
        if not isinstance(extent, int) or not all(isinstance(each, int) for each in inner):
            return 1, lambda _: self, None
        within = math.prod(each for each in inner if isinstance(each, int))
        outer = self._variables((const(0),) * level) if level else self.outer
        start = const(0) if level else self.start
        length = extent if within * extent < 2 * _PART else _part(extent, most, within, unrolled)

        def part(first: Expr, some: int) -> Steps:
            before = self.before + first * const(within)
            return Steps(outer, start + first, (some, *inner), before)

        count, rest = divmod(extent, length)
        left = part(const(count * length), rest) if rest else None
        return count, lambda number: part(number * const(length), length), left

    def unrolled(
        self, count: int, body: Callable[[Sequence[tuple[tuple[Expr, ...], Expr]]], Stmt]
    ) -> Stmt:
        """As ``loops``, with ``count`` steps of the innermost loop at once, then the rest singly.

        ``body(steps)``: for each step its reduction variables and its number within the piece.
        """

        def line(at: Callable[[Expr], tuple[Expr, ...]], step: Expr, extent: int | Expr) -> Stmt:
            def some(first: Expr, many: int) -> Stmt:
                places = [first + const(i) if i else first for i in range(many)]
                return body([(at(k), step + k) for k in places])

            groups, rest = _divided(extent, count)
            done = const(groups * count) if isinstance(groups, int) else groups * const(count)
            parts = [
                serial("k", groups, lambda i: some(i * const(count), count)),
                serial("k", rest, lambda i: some(done + i, 1)),
            ]
            return block(*(p for p, n in zip(parts, (groups, rest), strict=True) if not _none(n)))

        return self.lines(line)

    def lines(
        self, body: Callable[[Callable[[Expr], tuple[Expr, ...]], Expr, int | Expr], Stmt]
    ) -> Stmt:
        """All loops but the innermost.

        ``body(at, step, extent)``: ``at(k)`` are the reduction variables at iteration ``k`` of the
        innermost loop, which has ``extent`` iterations, the first being number ``step``.
        """
        return self._nest((), const(0), body)

    def _nest(
        self,
        inner: tuple[Expr, ...],
        line: Expr,
        body: Callable[[Callable[[Expr], tuple[Expr, ...]], Expr, int | Expr], Stmt],
    ) -> Stmt:
        level = len(inner)
        extent = self.extents[level]
        step = line * (const(extent) if isinstance(extent, int) else extent)
        if level == len(self.extents) - 1:
            return body(lambda k: self._variables((*inner, k)), self.before + step, extent)
        return serial("k", extent, lambda k: self._nest((*inner, k), step + k, body))

    def _variables(self, inner: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return (*self.outer, self.start + inner[0], *inner[1:])


def _part(extent: int, most: int, within: int, unrolled: int) -> int:
    """Iterations of a part, each of ``within`` steps: at best a divisor, so that none is left."""
    shortest = math.ceil(max(extent / most, _PART / within))
    multiple = unrolled if within == 1 else 1
    near = [i for i in range(shortest, min(extent, 3 * shortest) + 1) if i % multiple == 0]
    return next((i for i in near if extent % i == 0), near[0] if near else extent)


def pack_along_columns(
    scratch: Buffer, origin: Expr, panel: Sequence[int], steps: Steps, value: Value
) -> Stmt:
    """Copy vectors of columns.

    Args:
        scratch: destination, [step][column].
        origin: its first element.
        panel: lanes of each vector of the panel.
        steps: which steps.
        value: the source; its lanes are columns.
    """
    width = const(sum(panel))
    return steps.loops(
        lambda k, step: copy_columns(
            scratch, origin + step * width, panel, lambda at, lanes: value(k, at, lanes)
        )
    )


def copy_columns(
    scratch: Buffer, origin: Expr, panel: Sequence[int], value: Callable[[Expr, int], Expr]
) -> Stmt:
    """Copy one step of a panel.

    Args:
        scratch: destination.
        origin: its first element.
        panel: lanes of each vector of the panel.
        value: (column within the panel, lanes) -> vector.
    """
    return _vectors(panel, lambda at, lanes: store(scratch, origin + at, value(at, lanes), lanes))


def pack_along_reduction(
    scratch: Buffer, origin: Expr, panel: Sequence[int], steps: Steps, value: Value
) -> Stmt:
    """Copy squares of columns by steps, transposed in registers.

    Args:
        scratch: destination, [step][column].
        origin: its first element.
        panel: lanes of each vector of the panel.
        steps: which steps.
        value: the source; its lanes are steps of the innermost reduction loop.
    """
    width = const(sum(panel))

    def line(at: Callable[[Expr], tuple[Expr, ...]], step: Expr, extent: int | Expr) -> Stmt:
        def square(k: Expr, start: Expr, lanes: int) -> Stmt:
            rows = [value(at(k), start + const(i), lanes) for i in range(lanes)]
            places = [origin + (step + k + const(j)) * width + start for j in range(lanes)]
            return transpose(rows, lambda j, row: store(scratch, places[j], row, lanes))

        def single(k: Expr, start: Expr, lanes: int) -> Stmt:
            place = origin + (step + k) * width + start
            elements = [value(at(k), start + const(i), 1) for i in range(lanes)]
            return block(*(store(scratch, place + const(i), e) for i, e in enumerate(elements)))

        def strip(start: Expr, lanes: int) -> Stmt:
            squares, rest = _divided(extent, lanes)
            done = squares * lanes if isinstance(squares, int) else squares * const(lanes)
            first = const(done) if isinstance(done, int) else done
            parts = [
                serial("square", squares, lambda i: square(i * const(lanes), start, lanes)),
                serial("rest", rest, lambda i: single(first + i, start, lanes)),
            ]
            return block(*(p for p, n in zip(parts, (squares, rest), strict=True) if not _none(n)))

        return _vectors(panel, strip)

    return steps.lines(line)


def transpose(rows: Sequence[Expr], sink: Callable[[int, Expr], Stmt]) -> Stmt:
    """Transpose n vectors of n lanes in registers, n a power of two.

    Blocks of half the size change places across the diagonal, log2(n) times.

    Args:
        rows: the vectors.
        sink: (column number, its vector) -> statement.
    """
    count = len(rows)
    statements = []

    def keep(value: Expr) -> Expr:
        variable, statement = bound("v", value)
        statements.append(statement)
        return variable

    vectors = [keep(row) for row in rows]
    half = count // 2
    while half:
        lower = [const(j if not j & half else count + j - half) for j in range(count)]
        upper = [const(j + half if not j & half else count + j) for j in range(count)]
        for i in range(count):
            if not i & half:
                pair = [vectors[i], vectors[i + half]]
                vectors[i] = keep(tirx.Shuffle(pair, lower))
                vectors[i + half] = keep(tirx.Shuffle(pair, upper))
        half //= 2
    return block(*statements, *(sink(j, vector) for j, vector in enumerate(vectors)))


def _vectors(panel: Sequence[int], body: Callable[[Expr, int], Stmt]) -> Stmt:
    """``body(first column, lanes)`` for each vector, in a loop over neighbours of equal lanes."""

    def run(first: int, count: int, lanes: int) -> Stmt:
        return serial("v", count, lambda v: body(const(first) + v * const(lanes), lanes))

    statements, start = [], 0
    for lanes, neighbours in itertools.groupby(panel):
        count = len(list(neighbours))
        statements.append(run(start, count, lanes))
        start += count * lanes
    return block(*statements)


def _divided(extent: int | Expr, lanes: int) -> tuple[int | Expr, int | Expr]:
    """(whole vectors, elements left) of a loop."""
    if isinstance(extent, int):
        return divmod(extent, lanes)
    return tirx.truncdiv(extent, const(lanes)), tirx.truncmod(extent, const(lanes))


def _none(count: int | Expr) -> bool:
    return isinstance(count, int) and count == 0
