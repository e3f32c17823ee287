"""What to count on of gains that were measured with noise.

The largest of many noisy gains is mostly noise, and a search for the largest sum finds it. So each
is drawn to where it would be expected ahead of its measurement, by as much as the spread of its
kind is noise (empirical Bayes); for the biases that is a random walk over the layers.

Source: Efron and Morris, "Data analysis using Stein's estimator and its generalizations" (JASA
1975).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_STEPS = 2.0 ** np.arange(-12, 7)  # of a walk's variance, in units of the noise's
_LEAST = 1e-12

Values = NDArray[np.float64]


def shrunk(values: Sequence[float], noise: float) -> list[float]:
    """Gains of one kind, drawn to their mean.

    Args:
        values: measured.
        noise: variance of each around what it is.
    """
    if not values:
        return []
    found = np.array(values, np.float64)
    total = float(found.var(ddof=1)) if len(found) > 1 else 0.0
    signal = max(total - noise, 0.0)
    part = signal / max(signal + noise, _LEAST)
    result: list[float] = (found.mean() + part * (found - found.mean())).tolist()
    return result


def continued(
    values: Sequence[float], sooner: Sequence[float], later: Sequence[float]
) -> list[float]:
    """What gains that were given up would have come to, by those that were not.

    An early gain says little of the last one, and a loss may be one of time only: the part that is
    left of them is that of the others. What gained nothing early is not expected to gain later.

    Args:
        values: measured where they were given up.
        sooner: those of others as early.
        later: those of the same others in the end.
    """
    early, late = np.array(sooner, np.float64), np.array(later, np.float64)
    part = min(max(float(early @ late) / max(float(early @ early), _LEAST), 0.0), 1.0)
    result: list[float] = (part * np.array(values)).tolist()
    return result


def walked(values: Sequence[float], noise: float) -> list[float]:
    """Gains of the biases of the last 1, 2, ... layers, each near those of its neighbours.

    They are taken for a random walk from 0; how far it steps is what makes the values likeliest.

    Args:
        values: measured.
        noise: variance of each around what it is.
    """
    if noise < _LEAST or not values:
        return list(values)
    found = np.array(values, np.float64)
    order = np.arange(1, len(found) + 1)
    walk = np.minimum(order[:, None], order[None, :]).astype(np.float64)
    scale: float = max(
        _STEPS, key=lambda step: _likelihood(found, noise * (step * walk + np.eye(len(found))))
    )
    whole: Values = scale * walk
    result: list[float] = (whole @ np.linalg.solve(whole + np.eye(len(found)), found)).tolist()
    return result


def _likelihood(values: Values, covariance: Values) -> float:
    """Logarithm of the density of a normal variable of mean 0, but for a constant."""
    _, size = np.linalg.slogdet(covariance)
    return float(-size - values @ np.linalg.solve(covariance, values))
