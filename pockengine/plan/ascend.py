"""A search in the order of offsets: whatever can lie lowest goes first, ties by a preorder.

Every packing can be pushed down until each buffer rests on another or on the ground, and then be
built in the order of its offsets. So the search places, at each step, an unplaced span at the
lowest offset that those placed so far leave it, never below the one before. This is the canonical
order, the dominance rule and the section inference of Moffitt, "MiniMalloc" (ASPLOS 2023), sections
4-5. It is at its best where there is some room, as ``solve`` is where there is none.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pockengine.plan.skyline import Span
from pockengine.plan.solve import Agenda, Outcome

Array = NDArray[np.int64]
_DONE = 1 << 60  # the lowest offset of a span that is placed
_ORDERS = ("TWA", "WAT", "TAW", "AWT", "SWT", "WST")
PLAIN_PREORDERS = len(_ORDERS)  # restarts from here on mix them at random


class _State(NamedTuple):
    """Lowest offset by span, bytes left to place by section, unplaced spans over each boundary."""

    lowest: Array
    rest: Array
    crossing: Array


class _Frame(NamedTuple):
    """What can still follow a state, best one last."""

    state: _State
    agenda: Agenda
    untried: list[int]


def ascend(
    spans: Sequence[Span],
    length: int,
    capacity: int,
    *,
    steps: Sequence[int],
    restart: int,
    nodes: int,
    deadline: float = math.inf,
) -> Outcome:
    """Packs ``spans`` below ``capacity``, or gives up after ``nodes``.

    ``steps`` is how long each span lives, which sections do not tell. The restart chooses the
    preorder: some plain ones first, then random mixtures. The result is a function of the arguments
    unless the ``deadline`` (of time.monotonic) cuts it short; it claims no proof.
    """
    ranked = _preorder(spans, length, steps, restart)
    descent = _Ascent([spans[i] for i in ranked], length, capacity)
    found = descent.run(nodes, deadline)
    if found is None:
        return Outcome(None, False, descent.nodes)
    offsets = [0] * len(spans)
    for index, offset in zip(ranked, found, strict=True):
        offsets[index] = offset
    return Outcome(offsets, False, descent.nodes)


def _preorder(spans: Sequence[Span], length: int, steps: Sequence[int], restart: int) -> list[int]:
    """Spans by (T)otal of their fullest section, (W)idth in steps, (A)rea, (S)ize; most first."""
    total = [0] * length
    for start, end, size in spans:
        for section in range(start, end):
            total[section] += size
    rng = random.Random(restart)  # noqa: S311 - reproducible search, not secrecy
    noise = 0.0 if restart < PLAIN_PREORDERS else rng.choice((0.05, 0.15, 0.4))
    order = _ORDERS[restart] if restart < PLAIN_PREORDERS else rng.choice(_ORDERS)

    def key(index: int) -> tuple[float, ...]:
        start, end, size = spans[index]
        width = steps[index] * rng.uniform(1 - noise, 1 + noise)
        measures = {
            "T": float(max(total[start:end])),
            "W": float(width),
            "A": float(width * size),
            "S": float(size),
        }
        return tuple(-measures[letter] for letter in order)

    return sorted(range(len(spans)), key=key)


class _Ascent:
    """One depth-first search over spans given in preorder."""

    def __init__(self, spans: Sequence[Span], length: int, capacity: int) -> None:
        self.nodes = 0
        self._limit = 0
        self._capacity = capacity
        table = np.array(spans, dtype=np.int64).reshape(-1, 3)
        self._start, self._end, self._size = (np.ascontiguousarray(c) for c in table.T)
        self._meets = (self._start[:, None] < self._end) & (self._start < self._end[:, None])
        steps = np.arange(length)[:, None]
        covered = (self._start <= steps) & (steps < self._end)
        self._members = np.nonzero(covered)[1]
        self._first = np.concatenate(([0], np.cumsum(covered.sum(axis=1))))
        crossing = ((self._start < steps) & (steps < self._end)).sum(axis=1)
        self._state = _State(np.zeros(len(spans), np.int64), covered @ self._size, crossing)
        self._offsets = np.zeros(len(spans), np.int64)
        self._frames: list[_Frame] = []
        idle = (np.nonzero(crossing[1:] == 0)[0] + 1).tolist()
        self._agenda = self._split((0, length, 0, None), idle)

    def run(self, limit: int, deadline: float) -> list[int] | None:
        """Offsets in the order of the spans; None when nothing is left to try, or the limit hit."""
        if bool((self._state.rest > self._capacity).any()):
            return None
        self._limit = limit
        last, rank = 0, -1
        while self.nodes < limit:
            if time.monotonic() >= deadline:
                return None
            first, until, _, behind = self._agenda
            untried = self._candidates(first, until, last, rank)
            if untried is None:
                if behind is None:
                    return [int(offset) for offset in self._offsets]
                self._agenda = behind
                del self._frames[behind[2] :]
                last, rank = 0, -1
                continue
            self._frames.append(_Frame(self._state, self._agenda, untried))
            placed = self._advance()
            if placed is None:
                return None
            last, rank = placed
        return None

    def _candidates(self, first: int, until: int, last: int, rank: int) -> list[int] | None:
        """Spans of a window that may come next, best one last; None when all are placed."""
        lowest = self._state.lowest
        open_ = (lowest < _DONE) & (self._start >= first) & (self._end <= until)
        live = np.nonzero(open_)[0]
        if not len(live):
            return None
        offsets = lowest[live]
        fits = offsets < (offsets + self._size[live]).min()
        fits &= (offsets > last) | ((offsets == last) & (live > rank))
        live, offsets = live[fits], offsets[fits]
        best_last: list[int] = live[np.argsort(offsets, kind="stable")][::-1].tolist()
        return best_last

    def _advance(self) -> tuple[int, int] | None:
        """Places the next untried span that leaves room for the rest; its offset and rank."""
        frames = self._frames
        while frames and self.nodes < self._limit:
            state, agenda, untried = frames[-1]
            if not untried:
                frames.pop()
                continue
            self.nodes += 1
            index = untried.pop()
            offset = int(state.lowest[index])
            self._offsets[index] = offset
            self._state = self._placed(state, index, offset)
            if self._has_room(agenda, offset):
                start, end = int(self._start[index]), int(self._end[index])
                return self._enter(agenda, start, end, (offset, index))
        return None

    def _placed(self, state: _State, index: int, offset: int) -> _State:
        start, end, size = self._start[index], self._end[index], self._size[index]
        lowest = np.maximum(state.lowest, self._meets[index] * (offset + size))
        lowest[index] = _DONE
        rest = state.rest.copy()
        rest[start:end] -= size
        crossing = state.crossing.copy()
        crossing[start + 1 : end] -= 1
        return _State(lowest, rest, crossing)

    def _has_room(self, agenda: Agenda, offset: int) -> bool:
        """Whether in each section what is left fits above the lowest that any of it can have."""
        first, until, _, _ = agenda
        edges = self._first[first : until + 1]
        members = self._members[edges[0] : edges[-1]]
        floor = np.minimum.reduceat(self._state.lowest[members], edges[:-1] - edges[0])
        rest = self._state.rest[first:until]
        needed = np.maximum(floor, offset) + rest
        return not bool((needed[rest > 0] > self._capacity).any())

    def _enter(
        self, agenda: Agenda, start: int, end: int, placed: tuple[int, int]
    ) -> tuple[int, int]:
        """Cuts the window where no unplaced span crosses any more; a new window starts at 0."""
        freed = start + 1 + np.nonzero(self._state.crossing[start + 1 : end] == 0)[0]
        if not len(freed):
            self._agenda = agenda
            return placed
        self._agenda = self._split(agenda, freed.tolist())
        return 0, -1

    def _split(self, agenda: Agenda, boundaries: Sequence[int]) -> Agenda:
        """The front window of an agenda cut at ``boundaries``."""
        first, until, _, behind = agenda
        edges = [first, *boundaries, until]
        for index in range(len(edges) - 2, -1, -1):
            behind = (edges[index], edges[index + 1], len(self._frames), behind)
        assert behind is not None
        return behind
