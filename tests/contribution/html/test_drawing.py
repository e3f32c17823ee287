"""Axes: round ticks around all values."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pockengine.contribution.html.drawing import Axis, axis_over

VALUES = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(st.lists(VALUES, max_size=8))
def test_an_axis_holds_its_values(values: list[float]) -> None:
    """Ticks rise, are few, and enclose all values."""
    axis = axis_over(values)
    assert 2 <= len(axis.ticks) <= 9
    assert list(axis.ticks) == sorted(set(axis.ticks))
    extent = axis.ticks[-1] - axis.ticks[0]
    for value in values:
        assert axis.ticks[0] - 1e-6 * extent <= value <= axis.ticks[-1] + 1e-6 * extent
        assert 0 <= axis.share(value) <= 1


@pytest.mark.parametrize("values", [[], [0.0], [nan, inf], [3.0, 3.0]])
def test_an_axis_of_nothing(values: list[float]) -> None:
    """Without an extent of its own it has one."""
    axis = axis_over(values, least=2.0)
    assert axis.ticks[-1] - axis.ticks[0] >= 2.0


def test_labels() -> None:
    """As many digits as tell neighbours apart."""
    axis = Axis((-0.5, 0.0, 0.5))
    assert [axis.text(tick, signed=True) for tick in axis.ticks] == [
        "\N{MINUS SIGN}0.5",
        "0",
        "+0.5",
    ]
    assert Axis((0.0, 2000.0)).text(2000.0) == "2000"
    assert Axis((0.0, 0.05)).text(0.05) == "0.05"
