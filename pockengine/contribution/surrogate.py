"""Gains brought to agree with choices that were measured as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from pockengine.contribution.measured import Gain, Sensitivity
from pockengine.contribution.saturation import ADDITIVE
from pockengine.contribution.shown import Checked

_LEAST = 1e-4  # of accuracy: a standard deviation that nothing is taken to be below
_NORMAL = 1.96  # standard deviations from the mean to the end of a 95 % interval


def refined(sensitivity: Sensitivity, checked: Sequence[Checked]) -> Sensitivity:
    """The gains that are likeliest given single candidates and whole choices.

    Each part's gain is normal around what was measured of it alone, with that measurement's spread;
    a choice's gain is their sum, measured with a spread of its own. The condition of the one on the
    other (Gaussian regression) takes from parts what their choices did not show: most from those
    that were least certain. Where gains saturate, those of weights first become what is left of
    them in these choices: near what was measured, sums hold.

    Args:
        sensitivity: of single candidates.
        checked: choices that were fine-tuned as a whole.
    """
    if not checked:
        return sensitivity
    gains: list[Gain] = [*sensitivity.biases, *sensitivity.weights.values()]
    places = {gain.choice: index for index, gain in enumerate(gains)}
    parts = np.zeros((len(checked), len(gains)))
    for row, each in enumerate(checked):
        for index, ratio in each.choice.weights.items():
            parts[row, places[sensitivity.weights[index, ratio].choice]] = 1
        if each.choice.biases:
            parts[row, places[sensitivity.biases[each.choice.biases - 1].choice]] = 1
    left = np.ones(len(gains))
    left[len(sensitivity.biases) :] = _left(sensitivity, checked)
    means = left * [gain.counted for gain in gains]
    spread = (left * [_deviation(gain.low, gain.high) for gain in gains]) ** 2
    noise = np.diag([_deviation(each.low, each.high) ** 2 for each in checked])
    missing = np.array([each.measured for each in checked]) - parts @ means
    shared = spread[:, None] * parts.T
    shift = shared @ np.linalg.solve(parts @ shared + noise, missing)
    new = [
        replace(
            gain,
            mean=gain.mean + by,
            low=gain.low + by,
            high=gain.high + by,
            expected=expected + by,
        )
        for gain, expected, by in zip(gains, means.tolist(), shift.tolist(), strict=True)
    ]
    count = len(sensitivity.biases)
    weights = dict(zip(sensitivity.weights, new[count:], strict=True))
    biases = tuple(new[:count])
    return replace(sensitivity, biases=biases, weights=weights, saturation=ADDITIVE)


def _left(sensitivity: Sensitivity, checked: Sequence[Checked]) -> float:
    """The part of the gains of weights that these choices have of them, on the mean."""
    added = [sensitivity.added(each.choice) for each in checked]
    known = [sensitivity.saturation.gain(each) / each for each in added if each > 0]
    return fmean(known) if known else 1.0


def _deviation(low: float, high: float) -> float:
    return max((high - low) / 2 / _NORMAL, _LEAST)
