"""Offsets: valid, near the bound, at the bound where that is possible, refused where not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pockengine.errors import PlanError
from pockengine.plan.check import check
from pockengine.plan.model import Buffer
from pockengine.plan.pack import lower_bound, pack
from tests.plan.instances import (
    CAPACITY,
    dropped,
    intervals,
    named,
    perfect,
    shrunk,
    training,
)

ROWS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(1, 9), st.integers(0, 40)), min_size=0, max_size=24
)


@given(ROWS, st.sampled_from([1, 4, 64]))
@settings(deadline=None, max_examples=60)
def test_any_packing_passes_the_checker(rows: list[tuple[int, int, int]], alignment: int) -> None:
    """Random buffers come out apart, aligned, inside the peak, which is not below the bound."""
    buffers = named([(lower, lower + length, size) for lower, length, size in rows])
    packing = pack(buffers, alignment=alignment)
    check(buffers, packing.offsets, packing.peak)
    assert all(offset % alignment == 0 for offset in packing.offsets.values())
    assert packing.peak >= packing.lower_bound == lower_bound(buffers, alignment=alignment)


@pytest.mark.parametrize("pieces", [20, 100, 200, 300])
@pytest.mark.parametrize("seed", range(3))
def test_perfect_packings_are_found_at_the_bound(pieces: int, seed: int) -> None:
    """Pieces of a cut rectangle fit back into it without a byte to spare."""
    buffers = perfect(pieces, seed)
    packing = pack(buffers, capacity=CAPACITY)
    check(buffers, packing.offsets, CAPACITY)
    assert packing.peak == packing.lower_bound == CAPACITY


@pytest.mark.parametrize("seed", range(3))
def test_five_percent_of_room_is_enough(seed: int) -> None:
    """With 5 % above the bound, 250 pieces of odd sizes fit."""
    buffers = perfect(250, seed, unit=1)
    packing = pack(buffers, capacity=CAPACITY * 105 // 100)
    check(buffers, packing.offsets, CAPACITY * 105 // 100)


@pytest.mark.parametrize("layers", [10, 60, 200])
@pytest.mark.parametrize("seed", range(3))
def test_training_steps_are_within_five_percent(layers: int, seed: int) -> None:
    """Buffers shaped like a training step's come within 5 % of the bound by default effort."""
    buffers = training(layers, seed)
    packing = pack(buffers, alignment=64)
    check(buffers, packing.offsets, packing.peak)
    assert packing.gap <= 0.05


def test_thousands_of_buffers_are_within_five_percent() -> None:
    """Too many for a search: first fit that lifts what ends too high comes near the bound."""
    buffers = intervals(3000, 2)
    packing = pack(buffers, alignment=64)
    check(buffers, packing.offsets, packing.peak)
    assert packing.gap <= 0.05


@pytest.mark.parametrize(
    "buffers",
    [
        shrunk(150, 1, 0.03),
        shrunk(150, 2, 0.005),
        dropped(150, 1, 0.02),
        dropped(150, 2, 0.10),
        intervals(150, 1),
        intervals(300, 2),
    ],
    ids=["shrunk", "hardly shrunk", "few dropped", "many dropped", "random", "many random"],
)
def test_slack_is_put_to_use(buffers: list[Buffer]) -> None:
    """Where pieces almost match or some are missing, a bounded search comes within 5 %."""
    packing = pack(buffers, effort=30_000)
    check(buffers, packing.offsets, packing.peak)
    assert packing.gap <= 0.05


def test_default_effort_is_deterministic() -> None:
    """Equal input gives equal offsets when no capacity sets a clock running."""
    buffers = perfect(80, 7, unit=1)
    assert pack(buffers).offsets == pack(buffers).offsets


def test_no_buffers_need_no_arena() -> None:
    """An empty problem and one of empty buffers have a peak of zero."""
    assert pack([]).peak == 0
    assert pack(named([(0, 3, 0), (1, 2, 0)]), capacity=0).peak == 0


def test_own_alignment_and_fixed_offset_are_kept() -> None:
    """A buffer's own alignment and fixed offset hold beside unaligned neighbours."""
    buffers = [
        Buffer(id="a", lower=0, upper=4, size=3),
        Buffer(id="b", lower=1, upper=3, size=10, alignment=16),
        Buffer(id="c", lower=0, upper=4, size=5, fixed_offset=7),
    ]
    packing = pack(buffers)
    check(buffers, packing.offsets, packing.peak)
    assert packing.offsets["b"] % 16 == 0
    assert packing.offsets["c"] == 7


# Live bytes never exceed 6, yet no packing needs less than 7.
SEVEN = [(4, 6, 1), (6, 10, 2), (7, 10, 2), (0, 4, 2), (7, 10, 1), (2, 5, 3), (7, 10, 1)]
SEVEN += [(2, 6, 1), (5, 7, 4), (1, 2, 4), (0, 1, 2)]


@pytest.mark.parametrize(
    ("rows", "capacity", "message"),
    [
        ([(0, 2, 2), (1, 3, 2)], 3, r"arena of 3 bytes: .* peak of 4 .*no packing can .*bound 4 "),
        (SEVEN, 6, r"arena of 6 bytes: .* peak of 7 .*no packing can .*bound 6 "),
    ],
)
def test_what_cannot_fit_is_refused(
    rows: list[tuple[int, int, int]], capacity: int, message: str
) -> None:
    """Below the bound, and above it where exhaustion proves it, the message says so."""
    with pytest.raises(PlanError, match=message):
        pack(named(rows), capacity=capacity)


def test_time_that_runs_out_is_no_proof() -> None:
    """Without time to search the message says what was found, and claims nothing more."""
    with pytest.raises(PlanError, match=r"none that does was found in 0 s"):
        pack(perfect(200, 0), capacity=CAPACITY, seconds=0)


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (Buffer(id="x", lower=3, upper=3, size=1), r"buffer x: lifetime \[3, 3\)"),
        (Buffer(id="x", lower=0, upper=1, size=-1), "buffer x: size -1"),
        (Buffer(id="x", lower=0, upper=1, size=1, alignment=0), "buffer x: alignment 0"),
        (Buffer(id="x", lower=0, upper=1, size=1, fixed_offset=-4), "buffer x: fixed offset -4"),
        (Buffer(id="y", lower=0, upper=1, size=1), "buffer y: its id is there twice"),
    ],
)
def test_malformed_buffers_are_named(buffer: Buffer, message: str) -> None:
    """Each kind of nonsense has its message with the buffer's id."""
    with pytest.raises(PlanError, match=message):
        pack([Buffer(id="y", lower=0, upper=1, size=1), buffer])


def test_fixed_buffers_that_collide_are_refused() -> None:
    """Two fixed buffers on the same bytes at the same time are the caller's error."""
    fixed = [
        Buffer(id=n, lower=0, upper=2, size=8, fixed_offset=o) for n, o in [("a", 0), ("b", 4)]
    ]
    with pytest.raises(PlanError, match="fixed offset"):
        pack(fixed)
