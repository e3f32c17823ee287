"""What many gains come to together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pockengine.contribution.saturation import ADDITIVE, saturation

SUMS = st.floats(0.001, 50.0)


@given(SUMS, st.floats(0.001, 1.0))
def test_all_together_gain_what_was_measured(added: float, part: float) -> None:
    """The sum of everything comes to the gain that explains it; little comes to itself."""
    found = saturation(added, part * added)
    assert found.gain(added) == pytest.approx(part * added, rel=1e-6)
    assert found.gain(0.0) == 0.0
    assert found.gain(-1.0) == -1.0


@given(SUMS, st.floats(0.001, 1.0), st.lists(st.floats(0.0, 60.0), min_size=2))
def test_each_further_gain_adds_less(added: float, part: float, sums: list[float]) -> None:
    """More is never worth less, nor more than its sum."""
    found = saturation(added, part * added)
    gains = [found.gain(each) for each in sorted(sums)]
    assert gains == sorted(gains)
    assert all(gain <= each + 1e-9 for gain, each in zip(gains, sorted(sums), strict=True))


def test_gains_add_up_where_together_they_are_more() -> None:
    """Nothing saturates."""
    assert saturation(0.1, 0.2) is ADDITIVE
    assert saturation(-0.1, 0.2) is ADDITIVE
    assert ADDITIVE.gain(0.3) == 0.3
