"""The state of a bottom-up packing: a skyline over sections of time, and its valleys.

A *section* is a maximal set of buffers that live at once; a *span* is a buffer as
(first section, last section + 1, size). Buffers are stacked from offset 0; ``height[s]`` is the
top of the stack over section s, and everything not yet placed lies above it. A *valley* is a run of
equal heights between higher neighbours. What comes next over a valley's outermost section is either
a span that starts in that corner and ends inside the valley, or a gap. A corner without either is a
dead end, one with a single choice is forced: that inference is what makes the search quick. It is
the section inference and canonical order of Moffitt, "MiniMalloc" (ASPLOS 2023), sections 4-5,
turned from "which buffer next" to "which corner next".
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

Span = tuple[int, int, int]
WALL = 1 << 62
FORCED, OPEN, DEAD = -1.0, float("inf"), float("-inf")


class Corner(NamedTuple):
    """A choice: which of ``candidates`` sits on ``section``, the edge of valley [start, end).

    ``wall`` is the lower of the two neighbours' heights; ``may_waste`` says whether the capacity
    leaves room for a gap here, ``may_lift`` whether it easily does under the whole valley.
    """

    section: int
    start: int
    end: int
    wall: int
    candidates: tuple[int, ...]
    may_waste: bool
    may_lift: bool

    @property
    def scope(self) -> int:
        """The sections that decide what fits here, as bits: the valley's and its neighbours."""
        return ((1 << (self.end - self.start + 2)) - 1) << self.start >> 1


class Valley(NamedTuple):
    """A run of equal heights; ``urgency`` ranks its best corner (least first; DEAD, OPEN)."""

    end: int
    left: int
    right: int
    clock: int
    urgency: float
    corner: Corner | None


def sections(lifetimes: Sequence[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """The number of maximal sets of overlapping lifetimes, and each lifetime in those units.

    A set that is contained in another asks for nothing the other does not, so time shrinks to the
    starts that are followed by an end before the next start.
    """
    starts = sorted({lower for lower, _ in lifetimes})
    ends = sorted({upper for _, upper in lifetimes})
    following = [*starts[1:], *ends[-1:]]
    points = []
    for start, after in zip(starts, following, strict=True):
        index = bisect_right(ends, start)
        if index < len(ends) and ends[index] <= after:
            points.append(start)
    spans = [(bisect_left(points, low), bisect_left(points, up)) for low, up in lifetimes]
    return len(points), spans


class Skyline:
    """Places spans from the bottom up within ``capacity``, and takes moves back.

    Args:
        spans: what to place, in the order of preference within a corner given by ``priority``.
        length: number of sections.
        capacity: units of memory.
        priority: larger is tried first.
        leap: a gap reaches up to the next wall (quick, may miss solutions) instead of to the
            next height anything could have (complete).
        lift: the share of its slack that is readily spent to level a valley with its wall, if
            gaps leap. Without it small differences in size cost a gap for each section.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        length: int,
        capacity: int,
        priority: Sequence[float],
        *,
        leap: bool,
        lift: float = 0.0,
    ) -> None:
        self.spans = spans
        self.leap = leap
        self.lift = lift if leap else 0.0
        self.offsets = [-1] * len(spans)
        self.height = [0] * length
        self.full = [0] * length  # height at which nothing is left to place
        self.slack = [capacity] * length
        self.crossing = [0] * (length + 1)  # unplaced spans over the boundary before a section
        self._clock = 0
        self._stamp = [0] * length
        self._cache: list[Valley | None] = [None] * length
        self._trail: list[tuple[int, int]] = []
        self._starting: list[list[int]] = [[] for _ in range(length)]
        self._ending: list[list[int]] = [[] for _ in range(length + 1)]
        for index in sorted(range(len(spans)), key=lambda i: -priority[i]):
            self._enter(index)

    def _enter(self, index: int) -> None:
        start, end, size = self.spans[index]
        self._starting[start].append(index)
        self._ending[end].append(index)
        for section in range(start, end):
            self.full[section] += size
            self.slack[section] -= size
        for boundary in range(start + 1, end):
            self.crossing[boundary] += 1

    def overfull(self) -> bool:
        """Whether some section holds more than the capacity, whatever the order."""
        return min(self.slack, default=0) < 0

    def mark(self) -> int:
        """A point that ``undo`` can return to."""
        return len(self._trail)

    def best_corner(self, first: int, last: int) -> Corner | None:
        """The corner of sections [first, last) with the fewest choices; None when all is placed.

        A dead end is a corner without any.
        """
        height, full = self.height, self.full
        best: Valley | None = None
        left, start = WALL, first
        while start < last:
            if height[start] == full[start]:
                left, start = WALL, start + 1
                continue
            valley = self._valley(start, last, left)
            if best is None or valley.urgency < best.urgency:
                if valley.urgency == DEAD:
                    return Corner(start, start, valley.end, 0, (), may_waste=False, may_lift=False)
                best = valley
            left, start = height[start], valley.end
        return best.corner if best is not None else None

    def _valley(self, start: int, last: int, left: int) -> Valley:
        """The run of equal heights from ``start``, from the cache if nothing moved in it."""
        height, full = self.height, self.full
        known = self._cache[start]
        if known is not None:
            end = known.end
            right = height[end] if end < last and height[end] < full[end] else WALL
            fresh = known.left == left and known.right == right
            if fresh and max(self._stamp[start:end]) <= known.clock:
                return known
        level, end = height[start], start + 1
        while end < last and height[end] == level < full[end]:
            end += 1
        right = height[end] if end < last and height[end] < full[end] else WALL
        urgency, corner = OPEN, None
        if left > level < right:
            urgency, corner = self._rank(start, end, min(left, right))
        valley = Valley(end, left, right, self._clock, urgency, corner)
        self._cache[start] = valley
        return valley

    def _rank(self, start: int, end: int, wall: int) -> tuple[float, Corner | None]:
        """The more urgent corner of valley [start, end); ties go to the lower valley."""
        spans, offsets = self.spans, self.offsets
        fits = [i for i in self._starting[start] if offsets[i] < 0 and spans[i][1] <= end]
        urgency, corner = self._judge(start, fits, (start, end, wall))
        if end - start > 1 and urgency != DEAD:
            fits = [i for i in self._ending[end] if offsets[i] < 0 and spans[i][0] >= start]
            other, right = self._judge(end - 1, fits, (start, end, wall))
            if other < urgency:
                return other, right
        return urgency, corner

    def _judge(
        self, section: int, fits: list[int], valley: tuple[int, int, int]
    ) -> tuple[float, Corner | None]:
        """Counts the choices of one corner: spans that fit, and a gap weighted by its room."""
        (start, end, wall), slack, level = valley, self.slack[section], self.height[section]
        depth = wall - level
        may_waste = slack > 0 and (wall == WALL or depth <= slack or not self.leap)
        if not may_waste and not fits:
            return DEAD, None
        if wall != WALL and slack < depth:
            filling = slack
            for index in fits:
                filling += self.spans[index][2]
            if filling < depth:
                return DEAD, None
        may_lift = may_waste and depth <= self.lift * min(self.slack[start:end])
        corner = Corner(section, start, end, wall, tuple(fits), may_waste, may_lift)
        choices = len(fits) + may_waste
        if choices == 1:
            return FORCED, corner
        return choices + 0.01 * level / (self.full[section] + slack), corner

    def place(self, index: int) -> list[int]:
        """Puts a span on its floor; the boundaries that no unplaced span crosses any more."""
        start, end, size = self.spans[index]
        level = self.height[start]
        self.offsets[index] = level
        self._raise(start, end, level + size)
        self._trail.append((index, level))
        freed = []
        crossing = self.crossing
        for boundary in range(start + 1, end):
            crossing[boundary] -= 1
            if not crossing[boundary]:
                freed.append(boundary)
        return freed

    def waste(self, corner: Corner) -> bool:
        """Leaves a gap in a corner, up to where something could next lie; False if too high."""
        if corner.may_lift:
            for section in range(corner.start, corner.end):
                self._leave(section, corner.wall)
            return True
        section, target = corner.section, corner.wall
        if not self.leap or target == WALL:
            target = min(target, self.height[section] + self._least_step(corner))
        if target - self.height[section] > self.slack[section]:
            return False
        self._leave(section, target)
        return True

    def _leave(self, section: int, target: int) -> None:
        """Leaves everything below ``target`` free in one section."""
        level = self.height[section]
        self.slack[section] -= target - level
        self.full[section] += target - level
        self._raise(section, section + 1, target)
        self._trail.append((-1 - section, level))

    def touched(self, mark: int) -> int:
        """The sections whose height has changed since ``mark``, as bits."""
        bits = 0
        for index, _ in self._trail[mark:]:
            start, end = self.spans[index][:2] if index >= 0 else (-1 - index, -index)
            bits |= ((1 << (end - start)) - 1) << start
        return bits

    def _least_step(self, corner: Corner) -> int:
        """The smallest unplaced span inside a valley that does not cover the corner itself."""
        spans, offsets, section = self.spans, self.offsets, corner.section
        least = WALL
        for start in range(corner.start, corner.end):
            for index in self._starting[start]:
                low, up, size = spans[index]
                inside = offsets[index] < 0 and up <= corner.end
                if inside and not low <= section < up and size < least:
                    least = size
        return least

    def undo(self, mark: int) -> None:
        """Takes back all moves since ``mark``."""
        trail, spans, crossing = self._trail, self.spans, self.crossing
        while len(trail) > mark:
            index, level = trail.pop()
            if index >= 0:
                start, end, _ = spans[index]
                self.offsets[index] = -1
                self._raise(start, end, level)
                for boundary in range(start + 1, end):
                    crossing[boundary] += 1
            else:
                section = -1 - index
                gap = self.height[section] - level
                self.slack[section] += gap
                self.full[section] -= gap
                self._raise(section, section + 1, level)

    def _raise(self, start: int, end: int, level: int) -> None:
        self._clock += 1
        self.height[start:end] = [level] * (end - start)
        self._stamp[start:end] = [self._clock] * (end - start)
