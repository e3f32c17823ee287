"""What many gains come to together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pockengine.contribution.saturation import ADDITIVE, Saturation, saturation

CEILINGS = st.floats(0.01, 50.0)
SHARES = st.floats(0.0, 0.95)  # of a ceiling


@given(CEILINGS, st.lists(st.floats(0.0, 60.0), min_size=2))
def test_each_further_amount_gains_less(ceiling: float, sums: list[float]) -> None:
    """More is never worth less, nor more than its sum; a loss stays one."""
    found = Saturation(ceiling)
    gains = [found.gain(each) for each in sorted(sums)]
    assert gains == sorted(gains)
    assert all(gain <= each + 1e-9 for gain, each in zip(gains, sorted(sums), strict=True))
    assert max(gains) <= ceiling
    assert found.gain(0.0) == 0.0
    assert found.gain(-1.0) == -1.0


@given(CEILINGS, SHARES, SHARES)
def test_an_amount_is_what_adds_the_gain(ceiling: float, first: float, second: float) -> None:
    """Beside nothing and beside others, a part gains what it was measured to."""
    found = Saturation(ceiling)
    beside, both = sorted((first * ceiling, second * ceiling))
    alone = found.amount(beside)
    assert found.gain(alone) == pytest.approx(beside, rel=1e-6, abs=1e-9)
    added = found.amount(both - beside, beside)
    assert added >= both - beside - 1e-9  # beside others it adds more than it shows
    assert found.gain(alone + added) == pytest.approx(both, rel=1e-6, abs=1e-9)


@given(SHARES, st.lists(SHARES, min_size=2, max_size=9), st.floats(0.0, 1.0))
def test_all_together_gain_what_was_measured(
    biases: float, shares: list[float], share: float
) -> None:
    """From a little above the largest alone to the sum."""
    parts = [(gain, 0.5 * biases) for gain in shares]
    most = 1.05 * max(biases, *(gain + beside for gain, beside in parts))
    total = biases + sum(shares)
    everything = most + share * (total - most)
    found = saturation(biases, parts, everything)
    if total <= everything or most == 0:
        assert found is ADDITIVE
        return
    amounts = found.amount(biases) + sum(found.amount(*part) for part in parts)
    assert found.gain(amounts) == pytest.approx(everything, rel=1e-3)


def test_biases_count_less_beside_weights() -> None:
    """Where a gain is near what everything gains, others add little to it."""
    found = saturation(0.07, [(0.03, 0.0), (0.03, 0.02), (0.04, 0.05)], 0.11)
    weights = found.amount(0.03) + found.amount(0.03, 0.02) + found.amount(0.04, 0.05)
    assert found.gain(weights) > 0.07
    assert found.gain(weights + found.amount(0.07)) == pytest.approx(0.11)


def test_all_that_lose_together_count_as_the_best_of_them() -> None:
    """Nothing gains more than a little above the largest gain alone."""
    found = saturation(0.05, [(0.03, 0.0), (0.02, 0.05)], 0.01)
    assert 0.07 < found.ceiling < 0.08


def test_gains_add_up_where_together_they_are_more() -> None:
    """Nothing saturates."""
    assert saturation(0.1, [(0.1, 0.05)], 0.2) is ADDITIVE
    assert saturation(-0.1, [(-0.1, 0.0)], 0.2) is ADDITIVE
    assert ADDITIVE.gain(0.3) == 0.3
    assert ADDITIVE.amount(0.3, 0.2) == pytest.approx(0.3)
