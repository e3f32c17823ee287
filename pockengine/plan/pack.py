"""Byte offsets for buffers with known lifetimes, in as small an arena as can be found."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from pockengine.errors import PlanError
from pockengine.plan.ascend import PLAIN_PREORDERS, ascend
from pockengine.plan.first_fit import Item, first_fit
from pockengine.plan.model import Buffer, Packing
from pockengine.plan.skyline import Span, sections
from pockengine.plan.solve import Outcome, search

__all__ = ["Buffer", "Packing", "lower_bound", "pack"]

_CORNER_RESTARTS = 2  # at one target before the next target has its turn
_TIGHT_TURNS = 4  # the bound is tried at each of these, then at every other one
_LOOSE = (0.05, 0.03, 0.08, 0.04, 0.5)  # above the bound, by turns: success is not monotone
_ASCENT_NODES = 1.5  # per buffer: an ascent that succeeds hardly ever turns back
_DEFAULT_SECONDS = 60.0
_EFFORT = 5000
_UNBOUNDED = 1 << 60
_SIZE_PER_EFFORT = 600  # above it, a descent through all buffers takes too long


def pack(
    buffers: Sequence[Buffer],
    *,
    capacity: int | None = None,
    seconds: float = _DEFAULT_SECONDS,
    alignment: int = 1,
    effort: int = _EFFORT,
) -> Packing:
    """Places buffers so that no two that are live at once overlap.

    Without ``capacity`` the effort is bounded by a count of search nodes, so equal input gives
    equal offsets; ``seconds`` is not used. With it, the search ends at the first packing of at most
    ``capacity`` bytes. Sizes are rounded up to the alignment all buffers share.

    Args:
        buffers: what to place.
        capacity: bytes the arena may have.
        seconds: how long to look for a packing within ``capacity``.
        alignment: of every offset, in bytes, besides each buffer's own.
        effort: search nodes where there is no capacity; the default takes a fraction of a second,
            twenty times as much some ten seconds.

    Raises:
        PlanError: a buffer is malformed, or nothing within ``capacity`` was found.
    """
    began = time.perf_counter()
    problem = _Problem(buffers, alignment)
    nearly = problem.bound + problem.bound // 1000
    problem.try_first_fit(nearly if capacity is None else capacity)
    if capacity is None:
        problem.improve(effort)
    elif problem.peak > capacity:
        _fit(problem, capacity, seconds)
    return Packing(
        offsets=problem.by_id(),
        peak=problem.peak,
        lower_bound=problem.bound,
        seconds=time.perf_counter() - began,
    )


def lower_bound(buffers: Sequence[Buffer], *, alignment: int = 1) -> int:
    """The largest sum of (rounded) sizes live at one time, in bytes; no arena can be smaller."""
    return _Problem(buffers, alignment).bound


class _Problem:
    """The buffers as plain numbers, and the best packing so far."""

    def __init__(self, buffers: Sequence[Buffer], alignment: int) -> None:
        _validate(buffers, alignment)
        steps = [math.lcm(alignment, buffer.alignment) for buffer in buffers]
        self._shared = math.gcd(*steps) if steps else 1
        self._coarse = math.lcm(*steps) if steps else 1
        self._buffers = buffers
        self.items = [
            Item(b.lower, b.upper, _round_up(b.size, self._shared), step, b.fixed_offset)
            for b, step in zip(buffers, steps, strict=True)
        ]
        self.bound = _live_bytes(self.items)
        self._solid = [index for index, item in enumerate(self.items) if item.size]
        length, spans = sections([(self.items[i].lower, self.items[i].upper) for i in self._solid])
        self._length = length
        self._steps = [self.items[i].upper - self.items[i].lower for i in self._solid]
        self._spans: list[Span] = [
            (start, end, _round_up(self.items[i].size, self._coarse))
            for (start, end), i in zip(spans, self._solid, strict=True)
        ]
        self.offsets = [0] * len(buffers)
        self.peak = -1
        self.searchable = all(b.fixed_offset is None for b in buffers)
        self.exact = self._shared == self._coarse

    def by_id(self) -> dict[str, int]:
        """Offsets of the best packing."""
        return {b.id: offset for b, offset in zip(self._buffers, self.offsets, strict=True)}

    def try_first_fit(self, enough: int) -> None:
        """First fit in order after order, until one needs no more than ``enough`` bytes."""
        for offsets in first_fit(self.items, self.bound):
            self._keep(offsets)
            if self.peak <= enough:
                return

    def improve(self, effort: int) -> None:
        """Searches below the best peak, by turns at the lower bound and at a looser target."""
        left = min(effort, _SIZE_PER_EFFORT * effort // (len(self._spans) + self._length + 1))
        if left <= len(self._spans) or not self.searchable:
            return
        low, turn = self.bound, 0
        while left > 0 and self.peak > low:
            if turn < _TIGHT_TURNS or turn % 2 == 0:
                used, proved = self.try_search(low, turn, left, math.inf)
                left -= used
                low += proved
            target = self._loose_target(turn)
            if low < target < self.peak and left > 0:
                left -= self.try_search(target, turn, left, math.inf)[0]
            turn += 1

    def _loose_target(self, turn: int) -> int:
        """Halfway to the bound, or a few percent above it where that is less."""
        share = _LOOSE[turn % len(_LOOSE)]
        return min((self.bound + self.peak) // 2, self.bound + int(self.bound * share))

    def try_search(self, target: int, turn: int, nodes: int, deadline: float) -> tuple[int, bool]:
        """Looks for a packing within ``target`` bytes: nodes used, and whether none can exist."""
        capacity = target // self._coarse * self._coarse
        used = 0
        for restart in (turn % PLAIN_PREORDERS, PLAIN_PREORDERS + turn):
            allowed = min(nodes - used, int(_ASCENT_NODES * len(self._spans)) + 50)
            outcome = ascend(
                self._spans,
                self._length,
                capacity,
                steps=self._steps,
                restart=restart,
                nodes=allowed,
                deadline=deadline,
            )
            used += outcome.nodes
            if self._take(outcome):
                return used, False
        outcome = search(
            self._spans,
            self._length,
            capacity,
            first_restart=turn * _CORNER_RESTARTS,
            restarts=_CORNER_RESTARTS,
            nodes=nodes - used,
            deadline=deadline,
        )
        self._take(outcome)
        return used + max(outcome.nodes, 1), outcome.proved and self.exact

    def _take(self, outcome: Outcome) -> bool:
        """Keeps the offsets of a search that has found some."""
        if outcome.offsets is None:
            return False
        offsets = [0] * len(self.items)
        for index, offset in zip(self._solid, outcome.offsets, strict=True):
            offsets[index] = offset
        self._keep(offsets)
        return True

    def _keep(self, offsets: list[int]) -> None:
        ends = [o + item.size for o, item in zip(offsets, self.items, strict=True)]
        peak = max(ends, default=0)
        if self.peak < 0 or peak < self.peak:
            self.offsets, self.peak = offsets, peak


def _fit(problem: _Problem, capacity: int, seconds: float) -> None:
    """Searches until the packing fits ``capacity``; tight targets often are the easier ones."""
    deadline = time.monotonic() + seconds
    targets = sorted({problem.bound, (problem.bound + capacity) // 2, capacity})
    impossible = capacity < problem.bound
    turn = 0
    while problem.searchable and not impossible and time.monotonic() < deadline:
        for target in list(targets):
            _, proved = problem.try_search(target, turn, _UNBOUNDED, deadline)
            if problem.peak <= capacity:
                return
            if proved:
                targets.remove(target)
                impossible = target == capacity
        turn += 1
    if not impossible:
        problem.improve(_EFFORT)
    _refuse(problem, capacity, seconds, impossible=impossible)


def _refuse(problem: _Problem, capacity: int, seconds: float, *, impossible: bool) -> None:
    reason = "no packing can" if impossible else f"none that does was found in {seconds:g} s"
    raise PlanError(
        where=f"arena of {capacity} bytes",
        found=f"the best packing has a peak of {problem.peak} bytes",
        needed=f"it must fit the capacity, but {reason} (lower bound {problem.bound} bytes)",
        remedy="Allow a larger capacity, or free memory by a smaller scheme or batch.",
    )


def _validate(buffers: Sequence[Buffer], alignment: int) -> None:
    """Refuses what has no meaning, naming the buffer."""
    if alignment < 1:
        raise _malformed("the arena", f"alignment {alignment}", "an alignment of at least 1")
    seen = set()
    for buffer in buffers:
        where = f"buffer {buffer.id}"
        if buffer.id in seen:
            raise _malformed(where, "its id is there twice", "ids are unique")
        seen.add(buffer.id)
        if buffer.upper <= buffer.lower:
            lifetime = f"lifetime [{buffer.lower}, {buffer.upper})"
            raise _malformed(where, lifetime, "upper lies after lower")
        if buffer.size < 0:
            raise _malformed(where, f"size {buffer.size}", "a size is not negative")
        if buffer.alignment < 1:
            raise _malformed(where, f"alignment {buffer.alignment}", "an alignment of at least 1")
        if buffer.fixed_offset is not None and (
            buffer.fixed_offset < 0 or buffer.fixed_offset % math.lcm(alignment, buffer.alignment)
        ):
            found = f"fixed offset {buffer.fixed_offset}"
            raise _malformed(where, found, "it is an aligned offset of at least 0")


def _malformed(where: str, found: str, needed: str) -> PlanError:
    return PlanError(where=where, found=found, needed=needed, remedy="Correct the buffer.")


def _live_bytes(items: Sequence[Item]) -> int:
    """The largest sum of sizes live at once, and no less than where fixed buffers end."""
    changes: dict[int, int] = {}
    peak = 0
    for item in items:
        changes[item.lower] = changes.get(item.lower, 0) + item.size
        changes[item.upper] = changes.get(item.upper, 0) - item.size
        if item.fixed is not None:
            peak = max(peak, item.fixed + item.size)
    live = 0
    for moment in sorted(changes):
        live += changes[moment]
        peak = max(peak, live)
    return peak


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
