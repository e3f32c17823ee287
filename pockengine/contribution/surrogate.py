"""Gains brought to agree with choices that were measured as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pockengine.contribution.measured import Gain, Sensitivity
from pockengine.contribution.saturation import Saturation
from pockengine.contribution.shown import Checked

_LEAST = 1e-4  # of accuracy: a standard deviation that nothing is taken to be below
_NORMAL = 1.96  # standard deviations from the mean to the end of a 95 % interval


def refined(sensitivity: Sensitivity, checked: Sequence[Checked]) -> Sensitivity:
    """The gains that are likeliest given single candidates and whole choices.

    Each part's amount is normal around what was measured of it alone, with that measurement's
    spread; a choice's amount is their sum, measured with a spread of its own. The condition of the
    one on the other (Gaussian regression) takes from parts what their choices did not show: most
    from those that were least certain.

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
    curve, beside = sensitivity.saturation, [_beside(sensitivity, gain) for gain in gains]
    biases = (sensitivity.bias_amount(k + 1) for k in range(len(sensitivity.biases)))
    means = np.array([*biases, *(sensitivity.part_amount(*part) for part in sensitivity.weights)])
    spread = np.array(
        [_deviation(curve, g.low, g.high, b) ** 2 for g, b in zip(gains, beside, strict=True)]
    )
    noise = np.diag([_deviation(curve, each.low, each.high) ** 2 for each in checked])
    missing = np.array([curve.amount(each.measured) for each in checked]) - parts @ means
    shared = spread[:, None] * parts.T
    amounts = means + shared @ np.linalg.solve(parts @ shared + noise, missing)
    return _with_amounts(sensitivity, amounts.tolist())


def _with_amounts(sensitivity: Sensitivity, amounts: Sequence[float]) -> Sensitivity:
    """Gains of biases, then of weights, that add these amounts."""
    curve, count = sensitivity.saturation, len(sensitivity.biases)
    alone = [0.0, *amounts[:count]]
    biases = tuple(
        _moved(gain, curve.gain(amount))
        for gain, amount in zip(sensitivity.biases, amounts, strict=False)
    )
    weights = {}
    for (part, gain), amount in zip(sensitivity.weights.items(), amounts[count:], strict=True):
        behind = alone[gain.choice.biases]
        weights[part] = _moved(gain, curve.gain(behind + amount) - curve.gain(behind))
    return replace(sensitivity, biases=biases, weights=weights)


def _moved(gain: Gain, counted: float) -> Gain:
    """A gain that counts as much."""
    by = counted - gain.counted
    return replace(
        gain, mean=gain.mean + by, low=gain.low + by, high=gain.high + by, expected=counted
    )


def _beside(sensitivity: Sensitivity, gain: Gain) -> float:
    """What the biases that a weight was measured beside gain; none of biases themselves."""
    return sensitivity.bias_gain(gain.choice.biases) if gain.choice.weights else 0.0


def _deviation(curve: Saturation, low: float, high: float, beside: float = 0.0) -> float:
    """Of an amount, from the interval of its gain."""
    return max((curve.amount(high, beside) - curve.amount(low, beside)) / 2 / _NORMAL, _LEAST)
