"""The corner search: complete on small problems, against every possible packing."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from pockengine.plan.skyline import sections
from pockengine.plan.solve import search

Rows = list[tuple[int, int, int]]


def smallest_arena(rows: Rows) -> int:
    """The least peak of first fit over all orders, which is the optimum."""
    best = sum(size for _, _, size in rows)
    for order in itertools.permutations(rows):
        placed: list[tuple[int, int, int, int]] = []
        for lower, upper, size in order:
            offset = 0
            for low, up, start, end in sorted(placed, key=lambda row: row[2]):
                if low < upper and lower < up and offset < end and start < offset + size:
                    offset = end
            placed.append((lower, upper, offset, offset + size))
        best = min(best, max((row[3] for row in placed), default=0))
    return best


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=6
    )
)
@settings(deadline=None, max_examples=150)
def test_search_is_exact(rows: list[tuple[int, int, int]]) -> None:
    """It packs into the optimum and proves that one byte less is impossible."""
    buffers = [(lower, lower + length, size) for lower, length, size in rows]
    length, lifetimes = sections([(lower, upper) for lower, upper, _ in buffers])
    spans = [(*life, size) for life, (_, _, size) in zip(lifetimes, buffers, strict=True)]
    optimum = smallest_arena(buffers)
    assert search(spans, length, optimum, restarts=4, nodes=10_000).offsets is not None
    below = search(spans, length, optimum - 1, restarts=4, nodes=10_000)
    assert below.offsets is None
    assert below.proved


def test_sections_keep_only_maximal_sets() -> None:
    """Time shrinks to the sets of overlapping lifetimes that no other set contains."""
    assert sections([(0, 9), (1, 2), (1, 3), (5, 6)]) == (2, [(0, 2), (0, 1), (0, 1), (1, 2)])
