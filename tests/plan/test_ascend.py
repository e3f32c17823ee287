"""The search in the order of offsets: sound, repeatable, and it backs up when it has to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pockengine.plan.ascend import ascend
from pockengine.plan.check import check
from pockengine.plan.skyline import Span, sections
from pockengine.plan.solve import Outcome, search
from tests.plan.instances import intervals, named

Rows = list[tuple[int, int, int]]
ROWS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=7
)


def spans_of(rows: Rows) -> tuple[int, list[Span]]:
    """The number of sections, and (lower, upper, size) in those units."""
    length, lifetimes = sections([(lower, upper) for lower, upper, _ in rows])
    return length, [(*life, size) for life, (_, _, size) in zip(lifetimes, rows, strict=True)]


def run(rows: Rows, capacity: int, *, restart: int = 0, nodes: int = 10_000) -> Outcome:
    """The search over rows of (lower, upper, size)."""
    length, spans = spans_of(rows)
    steps = [upper - lower for lower, upper, _ in rows]
    return ascend(spans, length, capacity, steps=steps, restart=restart, nodes=nodes)


@given(ROWS, st.integers(1, 14), st.integers(0, 9))
@settings(deadline=None, max_examples=150)
def test_search_is_exact(drawn: Rows, capacity: int, restart: int) -> None:
    """With room for all nodes it finds a packing exactly where the corner search does."""
    rows = [(lower, lower + length, size) for lower, length, size in drawn]
    length, spans = spans_of(rows)
    outcome = run(rows, capacity, restart=restart)
    complete = search(spans, length, capacity, restarts=4, nodes=10_000)
    assert (outcome.offsets is None) == (complete.offsets is None)
    if outcome.offsets is not None:
        offsets = {str(index): offset for index, offset in enumerate(outcome.offsets)}
        check(named(rows), offsets, capacity)


@pytest.mark.parametrize("restart", [0, 1, 20])
def test_equal_arguments_give_equal_offsets(restart: int) -> None:
    """Random mixtures of the preorders are seeded by the restart."""
    rows = [(b.lower, b.upper, b.size) for b in intervals(60, 0)]
    first, second = (run(rows, 1 << 20, restart=restart) for _ in range(2))
    assert first == second
    assert first.offsets is not None


def test_nodes_bound_the_search() -> None:
    """It gives up after as many placements as it was allowed."""
    rows = [(b.lower, b.upper, b.size) for b in intervals(60, 0)]
    outcome = run(rows, 1 << 20, nodes=10)
    assert outcome.offsets is None
    assert outcome.nodes == 10
