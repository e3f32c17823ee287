"""The checker: green on packings, red on every planted fault."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pockengine.errors import PlanError
from pockengine.plan.check import check
from pockengine.plan.model import Buffer
from pockengine.plan.pack import pack
from tests.plan.instances import named, training

PAIR = [
    Buffer(id="a", lower=0, upper=4, size=16, alignment=8),
    Buffer(id="b", lower=3, upper=6, size=8, alignment=8),
]
PLACED = st.lists(
    st.tuples(st.integers(0, 8), st.integers(1, 5), st.integers(0, 6), st.integers(0, 20)),
    max_size=9,
)


@given(PLACED)
def test_verdict_equals_the_pairwise_definition(rows: list[tuple[int, int, int, int]]) -> None:
    """On random offsets the sweep finds an overlap exactly when some pair overlaps."""
    buffers = named([(lower, lower + length, size) for lower, length, size, _ in rows])
    offsets = {buffer.id: row[3] for buffer, row in zip(buffers, rows, strict=True)}
    cells = [
        (step, byte)
        for buffer in buffers
        for step in range(buffer.lower, buffer.upper)
        for byte in range(offsets[buffer.id], offsets[buffer.id] + buffer.size)
    ]
    if len(cells) == len(set(cells)):
        check(buffers, offsets, 100)
    else:
        with pytest.raises(PlanError, match="overlaps"):
            check(buffers, offsets, 100)


@given(st.integers(0, 40), st.integers(0, 1_000_000), st.sampled_from([-1, 1]))
def test_off_by_one_is_seen_where_there_is_no_room(seed: int, pick: int, shift: int) -> None:
    """Moving one buffer of a stack by a byte is refused."""
    buffers = named([(0, 5, 3 + (seed + k) % 4) for k in range(6)])
    packing = pack(buffers)
    moved = buffers[pick % len(buffers)].id
    offsets = packing.offsets | {moved: packing.offsets[moved] + shift}
    with pytest.raises(PlanError, match=r"overlaps|offset is -1|arena ends"):
        check(buffers, offsets, packing.peak)


def test_planted_overlap_in_a_training_step_is_seen() -> None:
    """Two buffers that live together at the same offset are refused, both named."""
    buffers = training(40, 0)
    packing = pack(buffers)
    check(buffers, packing.offsets, packing.peak)
    first = buffers[0]
    second = next(b for b in buffers[1:] if b.lower < first.upper and first.lower < b.upper)
    offsets = packing.offsets | {second.id: packing.offsets[first.id]}
    with pytest.raises(PlanError, match="overlaps"):
        check(buffers, offsets, packing.peak + second.size)


def test_overlap_message_names_both_with_lifetimes_and_bytes() -> None:
    """The reader learns who, when and where."""
    message = (
        r"a \(live on \[0, 4\), bytes \[0, 16\)\) overlaps b \(live on \[3, 6\), bytes \[8, 16\)\)"
    )
    with pytest.raises(PlanError, match=message):
        check(PAIR, {"a": 0, "b": 8}, 64)


@pytest.mark.parametrize(
    ("offsets", "arena_bytes", "message"),
    [
        ({"a": 0}, 64, "buffer b of 8 bytes: it has no offset"),
        ({"a": -8, "b": 8}, 64, "its offset is -8"),
        ({"a": 0, "b": 20}, 64, "its offset is 20; offsets are multiples of 8"),
        ({"a": 0, "b": 16}, 23, "it ends at byte 24; the arena ends at 23"),
    ],
)
def test_misplaced_buffers_are_named(
    offsets: dict[str, int], arena_bytes: int, message: str
) -> None:
    """Missing, negative, misaligned and outside: one message each."""
    with pytest.raises(PlanError, match=message):
        check(PAIR, offsets, arena_bytes)


def test_touching_buffers_are_fine() -> None:
    """Neighbours in bytes and successors in time do not overlap."""
    check(PAIR, {"a": 0, "b": 16}, 24)
    check(named([(0, 2, 8), (2, 4, 8)]), {"0": 0, "1": 0}, 8)


def test_moving_a_fixed_buffer_is_refused() -> None:
    """A fixed offset is part of the problem."""
    fixed = [Buffer(id="f", lower=0, upper=1, size=4, fixed_offset=8)]
    with pytest.raises(PlanError, match="it is fixed at 8"):
        check(fixed, {"f": 0}, 64)
