"""Gains over a baseline, paired by seed, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from scipy.stats import t as student

_LEVEL = 0.975
_MANY = 10**6  # degrees of freedom, as of a variance that is known
_FEW = 3  # pairs, below which a rank correlation says nothing


@dataclass(frozen=True, slots=True)
class Spread:
    """How far differences of one seed lie from their mean, pooled over candidates.

    Args:
        variance: of one seed's difference.
        freedom: degrees of freedom that it was found with.
    """

    variance: float
    freedom: int

    @property
    def is_measured(self) -> bool:
        """Whether some candidates had several seeds."""
        return self.freedom < _MANY

    def half_width(self, seeds: int) -> float:
        """Half of the 95 % interval of a mean over so many seeds."""
        return float(student.ppf(_LEVEL, self.freedom)) * sqrt(self.variance / seeds)


def pooled(differences: Sequence[Sequence[float]], samples: int) -> Spread:
    """One spread for candidates that are measured alike: few seeds each say little alone.

    With one seed each there is nothing to pool: the spread is then what drawing that many test
    samples gives, as if the two accuracies were not paired; an upper bound.

    Args:
        differences: a candidate's, by seed.
        samples: of the test part.
    """
    several = [values for values in differences if len(values) > 1]
    if not several:
        return Spread(0.5 / samples, _MANY)  # two proportions, each of at most 1/4
    freedom = sum(len(values) - 1 for values in several)
    squares = sum(float(np.var(values) * len(values)) for values in several)
    return Spread(squares / freedom, freedom)


def spread_over(differences: Sequence[float]) -> Spread:
    """An upper bound for candidates of one seed each: how far they lie from each other.

    Args:
        differences: of several candidates.
    """
    return Spread(float(np.var(differences, ddof=1)), len(differences) - 1)


def paired(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Differences of the seeds that both have."""
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's; None for too few pairs, or where one side is all alike."""
    if len(pairs) < _FEW or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    found: Any = spearmanr(*zip(*pairs, strict=True))
    return float(found.statistic)
