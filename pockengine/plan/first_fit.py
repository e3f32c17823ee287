"""First fit: each buffer in turn at the lowest offset where it meets no other; the easy cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pockengine.errors import PlanError

_LIFTS = 16


class Item(NamedTuple):
    """A buffer as numbers: live on [lower, upper), ``size`` bytes at multiples of ``step``."""

    lower: int
    upper: int
    size: int
    step: int
    fixed: int | None


def first_fit(items: Sequence[Item], bound: int) -> Iterator[list[int]]:
    """One list of offsets per order: by size, by area, by length of life, by start.

    Then come rounds on the last order, and on the one before it, each of which halves the place in
    the order of all that ended above ``bound`` bytes: it comes to lie lower, and what used to lie
    there finds room in the gaps. Items with a fixed offset come first.

    Raises:
        PlanError: two items with fixed offsets collide.
    """
    keys = (
        lambda i: (-items[i].size, items[i].lower - items[i].upper, i),
        lambda i: (-items[i].size * (items[i].upper - items[i].lower), i, 0),
        lambda i: (items[i].lower - items[i].upper, -items[i].size, i),
        lambda i: (items[i].lower, -items[i].upper, -items[i].size),
    )
    packed: list[tuple[list[int], list[int]]] = []
    for key in keys:
        ranked = sorted(range(len(items)), key=key)
        order = sorted(ranked, key=lambda i: items[i].fixed is None)
        packed.append((order, _place(items, order)))
        yield packed[-1][1]
    for order, offsets in packed[:-3:-1]:
        yield from _lifted(items, order, offsets, bound)


def _lifted(
    items: Sequence[Item], order: list[int], offsets: list[int], bound: int
) -> Iterator[list[int]]:
    """First fit again and again, what ended above ``bound`` in half its place of the order."""
    for _ in range(_LIFTS):
        high = {i for i in order if offsets[i] + items[i].size > bound}
        places = [n / 2 if i in high else n for n, i in enumerate(order)]
        ranked = [i for _, i in sorted(zip(places, order, strict=True))]
        order = sorted(ranked, key=lambda i: items[i].fixed is None)
        offsets = _place(items, order)
        yield offsets


class _Placed:
    """Items placed so far in the order of their offsets, as columns of one array."""

    def __init__(self, count: int) -> None:
        self._rows: NDArray[np.int64] = np.empty((4, count), dtype=np.int64)
        self._count = 0

    def alive(self, item: Item) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Offsets and ends (running maximum) of those that live at some time with ``item``."""
        rows = self._rows[:, : self._count]
        met = (rows[0] < item.upper) & (rows[1] > item.lower)
        return rows[2, met], np.maximum.accumulate(rows[3, met])

    def add(self, item: Item, offset: int) -> None:
        at = int(np.searchsorted(self._rows[2, : self._count], offset))
        self._rows[:, at + 1 : self._count + 1] = self._rows[:, at : self._count]
        self._rows[:, at] = (item.lower, item.upper, offset, offset + item.size)
        self._count += 1


def _place(items: Sequence[Item], order: Sequence[int]) -> list[int]:
    offsets = [0] * len(items)
    placed = _Placed(len(items))
    for index in order:
        item = items[index]
        if item.size == 0:
            offsets[index] = item.fixed or 0
            continue
        starts, ends = placed.alive(item)
        offsets[index] = _lowest_gap(item, starts, ends)
        if item.fixed is not None:
            _refuse_collision(item, starts, ends)
            offsets[index] = item.fixed
        placed.add(item, offsets[index])
    return offsets


def _lowest_gap(item: Item, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> int:
    """The lowest multiple of the item's step with ``size`` free bytes above it."""
    if not len(starts):
        return 0
    floors = np.concatenate(([0], -(-ends // item.step) * item.step))
    fits = starts - floors[:-1] >= item.size
    first = int(fits.argmax())
    return int(floors[first]) if fits[first] else int(floors[-1])


def _refuse_collision(item: Item, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    assert item.fixed is not None
    if bool(np.any((starts < item.fixed + item.size) & (ends > item.fixed))):
        raise PlanError(
            where=f"fixed offset {item.fixed}",
            found=f"{item.size} bytes live on [{item.lower}, {item.upper}) meet another buffer",
            needed="fixed buffers that live at one time lie apart",
            remedy="Move one of them.",
        )
