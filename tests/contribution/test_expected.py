"""What is counted on of noisy gains."""

from __future__ import annotations

import numpy as np
import pytest

from pockengine.contribution.expected import continued, shrunk, walked
from pockengine.contribution.intervals import rank_correlation

NOISE = 0.02


def test_noise_alone_is_worth_its_mean() -> None:
    """Gains that differ no more than noise does are all alike, where alike is expected."""
    values = np.random.default_rng(0).normal(0.01, NOISE, 50)
    found = shrunk(values.tolist(), 1.5 * NOISE**2, [1.0] * 50)
    assert found == pytest.approx([values.mean()] * 50)


def test_without_noise_nothing_changes() -> None:
    """Exact gains are what they are, whatever was expected."""
    values = [0.3, -0.1, 0.2]
    assert shrunk(values, 0.0, [1.0, 5.0, 2.0]) == pytest.approx(values)
    assert shrunk(values, 0.0, [0.0, 0.0, 0.0]) == pytest.approx(values)
    assert walked(values, 0.0) == values
    assert shrunk([], NOISE, []) == walked([], NOISE) == []


def test_the_largest_gain_is_drawn_in_most() -> None:
    """The order stays; what is counted on is nearer to what is true."""
    rng = np.random.default_rng(1)
    true = rng.normal(0.0, NOISE, 200)
    values = true + rng.normal(0.0, NOISE, 200)
    found = np.array(shrunk(values.tolist(), NOISE**2, [1.0] * 200))
    assert (np.argsort(found) == np.argsort(values)).all()
    assert np.square(found - true).mean() < 0.7 * np.square(values - true).mean()


def test_estimates_help_as_far_as_they_tell() -> None:
    """Good ones bring gains nearer to the truth than gains alone do; bad ones hardly harm."""
    rng = np.random.default_rng(3)
    estimates = rng.exponential(1.0, 200)
    true = NOISE * (estimates + rng.normal(0.0, 0.2, 200))
    values = true + rng.normal(0.0, NOISE, 200)

    def error(ahead: np.ndarray) -> float:
        found = np.array(shrunk(values.tolist(), NOISE**2, ahead.tolist()))
        return float(np.square(found - true).mean())

    alone = error(np.ones(200))
    assert error(estimates) < 0.3 * alone
    assert error(rng.permutation(estimates)) < 1.2 * alone


def test_estimates_against_the_gains_count_for_nothing() -> None:
    """Where what was estimated to gain most loses, gains are drawn to none."""
    found = shrunk([-0.02, 0.0, -0.02, 0.0], 1.0, [1.0, 0.0, 1.0, 0.0])
    assert found == pytest.approx([0.0] * 4)


def test_what_was_given_up_goes_on_as_the_others_did() -> None:
    """Early gains count by what they told of the others; never more than in full."""

    def found(later: list[float], values: list[float]) -> list[float]:
        nothing = [0.0] * len(values)
        return continued(values, nothing, sooner=[0.2, 0.1], beside=[0.0, 0.0], later=later)

    assert found([0.1, 0.05], [0.5, -1.0, 0.0]) == pytest.approx([0.25, -0.5, 0.0])
    assert found([0.6, 0.3], [0.5]) == pytest.approx([0.5])
    assert found([-0.3, 0.1], [0.5]) == pytest.approx([0.0])


def test_what_was_given_up_counts_by_its_estimate_too() -> None:
    """What the others' estimates explain is expected; their early gains explain the rest."""
    sooner, beside = [0.2, -0.1], [1.0, 2.0]
    later = [0.03 * b + 0.5 * s for s, b in zip(sooner, beside, strict=True)]
    found = continued([0.0, 0.1], [4.0, 0.0], sooner=sooner, beside=beside, later=later)
    assert found == pytest.approx([4 * 0.03, 0.1 * 0.5])


def test_biases_are_near_their_neighbours() -> None:
    """A curve that rises and levels off comes out of the noise."""
    rng = np.random.default_rng(2)
    true = 0.05 * (1 - np.exp(-np.arange(1, 51) / 10))
    values = true + rng.normal(0.0, NOISE, 50)
    found = np.array(walked(values.tolist(), NOISE**2))
    assert np.square(found - true).mean() < 0.3 * np.square(values - true).mean()
    before, after = (
        rank_correlation(list(zip(true, each, strict=True))) for each in (values, found)
    )
    assert before is not None
    assert after is not None
    assert after > before
