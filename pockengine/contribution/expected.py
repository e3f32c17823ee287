"""What to count on of gains that were measured with noise.

The largest of many noisy gains is mostly noise, and a search for the largest sum finds it. So each
is drawn to what was expected ahead of its measurement, by as much as the spread of its kind around
that is noise (empirical Bayes). For weights that goes with the estimates from gradients, by as much
as the measured gains do; for the biases it is a random walk over the layers.

Source: Fay and Herriot, "Estimates of income for small places" (JASA 1979).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_STEPS = 2.0 ** np.arange(-12, 7)  # of a walk's variance, in units of the noise's
_LEAST = 1e-12

Values = NDArray[np.float64]


def shrunk(values: Sequence[float], noise: float, ahead: Sequence[float]) -> list[float]:
    """Gains of one kind, drawn to what is expected of them.

    Args:
        values: measured.
        noise: variance of each around what it is.
        ahead: of each what its gain is expected to go with; at least 0.
    """
    if not values:
        return []
    found = np.array(values, np.float64)
    base = _scale(ahead, found) * np.array(ahead, np.float64)
    rest = found - base
    total = float(rest @ rest) / max(len(rest) - 1, 1)
    signal = max(total - noise, 0.0)
    part = signal / max(signal + noise, _LEAST)
    result: list[float] = (base + part * rest).tolist()
    return result


def continued(
    values: Sequence[float],
    ahead: Sequence[float],
    *,
    sooner: Sequence[float],
    beside: Sequence[float],
    later: Sequence[float],
) -> list[float]:
    """What gains that were given up would have come to, by those that were not.

    An early gain says little of the last one, and a loss may be one of time only. So what is
    expected of them counts as much as of the others, and the early gain by the part that explains
    what the others differ by from that.

    Args:
        values: measured where they were given up.
        ahead: of each what its gain is expected to go with; at least 0.
        sooner: gains of others as early.
        beside: what those were expected to go with.
        later: those of the same others in the end.
    """
    early, late = np.array(sooner, np.float64), np.array(later, np.float64)
    scale = _scale(beside, late)
    rest = late - scale * np.array(beside)
    part = min(max(float(early @ rest) / max(float(early @ early), _LEAST), 0.0), 1.0)
    result: list[float] = (scale * np.array(ahead) + part * np.array(values)).tolist()
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


def _scale(ahead: Sequence[float], values: Values) -> float:
    """Of what was expected, as explains the values best; 0 where they do not go with it."""
    given = np.array(ahead, np.float64)
    size = float(given @ given)
    return max(float(given @ values), 0.0) / size if size else 0.0


def _likelihood(values: Values, covariance: Values) -> float:
    """Logarithm of the density of a normal variable of mean 0, but for a constant."""
    _, size = np.linalg.slogdet(covariance)
    return float(-size - values @ np.linalg.solve(covariance, values))
