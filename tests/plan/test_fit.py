"""Plans that are too large for their machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pockengine.errors import PlanError
from pockengine.plan.fit import check_fits
from pockengine.plan.memory import EntryPlan, Plan, Value
from pockengine.targets import get_target

KIB = 1 << 10
VALUES = (
    Value(name="a", scope="body.0", nbytes=100 * KIB, lower=0, upper=2, offset=0),
    Value(name="b", scope="body.1", nbytes=150 * KIB, lower=1, upper=3, offset=100 * KIB),
    Value(name="c", scope="body.0", nbytes=60 * KIB, lower=1, upper=2, offset=250 * KIB),
)
STEP = EntryPlan(
    order=(0, 1, 2),
    commit=2,
    values=VALUES,
    offsets={},
    arena_bytes=310 * KIB,
    lower_bound_bytes=310 * KIB,
    saved_bytes=0,
)
PLAN = Plan(
    alignment_bytes=8,
    arena_bytes=310 * KIB,
    lower_bound_bytes=310 * KIB,
    const_bytes=900 * KIB,
    param_bytes=10 * KIB,
    state_bytes=0,
    saved_bytes=0,
    places={},
    entries={"step": STEP},
)


def test_too_little_working_memory() -> None:
    """The message names the module that holds most at the worst moment, of what is live then."""
    board = get_target("stm32f746")
    check_fits(PLAN, board)
    with pytest.raises(PlanError) as caught:
        check_fits(replace(PLAN, state_bytes=1), board)
    assert str(caught.value) == (
        "stm32f746: needs 321 KiB of working memory (arena 310 KiB, param 10 KiB, state 1 KiB; "
        "body.0's values hold 160 KiB at the worst moment); has 320 KiB. "
        "Update fewer layers, compile with micro_batches, or halve the batch or the image"
    )


def test_too_little_flash() -> None:
    """Constants lie in flash, where the board has some."""
    with pytest.raises(PlanError, match=r"needs 1025 KiB of flash \(const alone\); has 1024 KiB"):
        check_fits(replace(PLAN, const_bytes=1025 * KIB), get_target("stm32f746"))


def test_unknown_memory_is_not_checked() -> None:
    """A target that says nothing of its memory takes any plan."""
    check_fits(PLAN, get_target("linux-arm64"))
