"""What the gains of many weights come to together, which is less than their sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

_PLACES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)  # of the tangents, in ceilings
_UNIT = (*((exp(-u), 1 - exp(-u) - u * exp(-u)) for u in _PLACES), (0.0, 1.0))  # of 1 - exp(-u)
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class Saturation:
    """From the sum of single gains to what they gain together.

    Weights that are trained beside each other learn much of the same, so that each further one
    gains less: ``c * (1 - exp(-sum / c))``, which begins as the sum and ends at a ceiling c. It is
    told by tangents, of which the lowest counts: so a search for the largest gain stays linear.

    Args:
        tangents: slope and intercept of each, with that at 0 among them.
    """

    tangents: Sequence[tuple[float, float]] = ((1.0, 0.0),)

    def gain(self, added: float) -> float:
        """What single gains of this sum come to."""
        return min(slope * added + start for slope, start in self.tangents)


ADDITIVE = Saturation()
"""Gains add up."""


def saturation(added: float, together: float) -> Saturation:
    """The one that explains what all parts gained together; none where that is their sum or more.

    Args:
        added: the sum of their gains.
        together: what they gained, more than 0.
    """
    if added <= together:
        return ADDITIVE
    low, high = 0.0, 2.0**10 * added
    for _ in range(_HALVINGS):
        ceiling = (low + high) / 2
        if _with_ceiling(ceiling).gain(added) < together:
            low = ceiling
        else:
            high = ceiling
    return _with_ceiling(high)


def _with_ceiling(ceiling: float) -> Saturation:
    return Saturation(tuple((slope, start * ceiling) for slope, start in _UNIT))
