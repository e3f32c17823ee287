"""What gains come to together, which is less than their sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, isinf

_PLACES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)  # of the tangents, in ceilings
_UNIT = (*((exp(-u), 1 - exp(-u) - u * exp(-u)) for u in _PLACES), (0.0, 1.0))  # of 1 - exp(-u)
_HALVINGS = 60
_ROOM = 1.02  # of a ceiling above the largest gain


@dataclass(frozen=True, slots=True)
class Saturation:
    """From amounts, which add up, to gains, which do not.

    What is trained side by side learns much of the same, so that each further part gains less:
    ``c * (1 - exp(-sum / c))``, which begins as the sum of the amounts and ends at a ceiling c. It
    is told by tangents, of which the lowest counts: so a search for the largest gain stays linear.

    Args:
        ceiling: in fractions of 1, as gains; infinite where gains add up themselves.
    """

    ceiling: float = inf

    @property
    def tangents(self) -> Sequence[tuple[float, float]]:
        """Slope and intercept of each, with that at 0 among them."""
        if isinf(self.ceiling):
            return ((1.0, 0.0),)
        return tuple((slope, start * self.ceiling) for slope, start in _UNIT)

    def gain(self, amount: float) -> float:
        """What amounts of this sum gain."""
        return min(slope * amount + start for slope, start in self.tangents)

    def amount(self, gain: float, beside: float = 0.0) -> float:
        """What adds this gain to another one.

        Args:
            gain: of a part, measured beside others.
            beside: what those gain by themselves.
        """
        return self._alone(beside + gain) - self._alone(beside)

    def _alone(self, gain: float) -> float:
        """The inverse of ``gain``; as far as the last tangent that rises."""
        rising = [(slope, start) for slope, start in self.tangents if slope > 0]
        most = _PLACES[-1] * self.ceiling
        return min(max((gain - start) / slope for slope, start in rising), most)


ADDITIVE = Saturation()
"""Gains add up."""


def saturation(
    biases: float, parts: Sequence[tuple[float, float]], everything: float
) -> Saturation:
    """The one that explains what all parts gained together; none where that is their sum or more.

    Args:
        biases: what all biases gain.
        parts: of each weight its gain, and what the biases that it was measured beside gain.
        everything: what all biases and all weights gain.
    """
    most = max(biases, *(gain + beside for gain, beside in parts), 0.0)
    total = biases + sum(gain for gain, _ in parts)
    if total <= everything or most <= 0:
        return ADDITIVE
    low, high = _ROOM * most, 2.0**10 * total
    for _ in range(_HALVINGS):
        middle = Saturation((low + high) / 2)
        amounts = middle.amount(biases) + sum(middle.amount(*part) for part in parts)
        if middle.gain(amounts) < everything:
            low = middle.ceiling
        else:
            high = middle.ceiling
    return Saturation(high)
