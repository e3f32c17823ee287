"""Derives the polynomial coefficients of pockengine/lower/math.py and power.py.

Each row is fitted on Chebyshev nodes to minimize the largest weighted error, by iteratively
reweighted least squares (Lawson's algorithm). The functions are evaluated with 40 digits. Needs
mpmath, which torch brings along. Run: ``python experiments/kernels/fit.py``; prints tuples.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mpmath  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
mpmath.mp.dps = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One fit: ``function(t)`` on ``[low, high]`` by a polynomial of the given degree.

    ``weight`` is what the absolute error is multiplied with before it is minimized.
    """

    name: str
    function: Callable[[mpmath.mpf], mpmath.mpf]
    low: float
    high: float
    degree: int
    weight: Callable[[Floats], Floats] = np.ones_like


def fit(row: Row, rounds: int = 60, nodes: int = 2000) -> tuple[Floats, float]:
    """The coefficients, lowest power first, and the largest weighted error on the nodes."""
    angle = (np.arange(nodes) + 0.5) * np.pi / nodes
    t = 0.5 * (row.low + row.high) - 0.5 * (row.high - row.low) * np.cos(angle)
    value = np.array([float(row.function(mpmath.mpf(x))) for x in t])
    error_weight = row.weight(t)
    lawson = np.full(nodes, 1.0 / nodes)
    best = (np.zeros(0), np.inf)
    for _ in range(rounds):
        coefficients = _least_squares(t, value, error_weight * np.sqrt(lawson), row.degree)
        error = np.abs(np.polynomial.polynomial.polyval(t, coefficients) - value) * error_weight
        if error.max() < best[1]:
            best = (coefficients, float(error.max()))
        lawson = lawson * (error / error.max() + 1e-3)
        lawson /= lawson.sum()
    return best


def _least_squares(t: Floats, value: Floats, weight: Floats, degree: int) -> Floats:
    """The polynomial that minimizes the weighted squares; columns are scaled to condition it."""
    powers = t[:, None] ** np.arange(degree + 1)
    scale = np.abs(powers).max(axis=0)
    matrix = powers / scale * weight[:, None]
    return np.asarray(np.linalg.lstsq(matrix, value * weight, rcond=None)[0] / scale)


def _quotient(
    function: Callable[[mpmath.mpf], mpmath.mpf], power: int
) -> Callable[[mpmath.mpf], mpmath.mpf]:
    """function(t) / t^power; fits never sample t = 0 itself."""
    return lambda t: function(t) / t**power


def _complement(x: Floats) -> Floats:
    """1 - erf(x)."""
    return np.array([float(mpmath.erfc(value)) for value in x])


ROWS = (
    Row(
        name="exp: (e^r - 1 - r) / r^2",
        function=_quotient(lambda r: mpmath.expm1(r) - r, 2),
        low=-0.3468, high=0.3468, degree=4, weight=lambda t: t * t,
    ),
    Row(
        name="expm1: (e^r - 1 - r) / r^2",
        function=_quotient(lambda r: mpmath.expm1(r) - r, 2),
        low=-0.3468, high=0.3468, degree=5, weight=np.abs,
    ),
    Row(
        name="log: (log(1 + f) - f + f^2/2) / f^3",
        function=_quotient(lambda f: mpmath.log1p(f) - f + f * f / 2, 3),
        low=-0.2930, high=0.4143, degree=8, weight=lambda t: t * t,
    ),
    Row(
        name="sin: (sin(r) / r - 1) / r^2 in t = r^2",
        function=lambda t: (mpmath.sin(mpmath.sqrt(t)) / mpmath.sqrt(t) - 1) / t,
        low=0.0, high=0.6200, degree=3, weight=lambda t: t,
    ),
    Row(
        name="cos: (cos(r) - 1 + r^2/2) / r^4 in t = r^2",
        function=lambda t: (mpmath.cos(mpmath.sqrt(t)) - 1 + t / 2) / t**2,
        low=0.0, high=0.6200, degree=3, weight=lambda t: t * t,
    ),
    Row(
        name="atanh: (2 atanh(s) / s - 2) / s^2 in t = s^2",
        function=lambda t: (2 * mpmath.atanh(mpmath.sqrt(t)) / mpmath.sqrt(t) - 2) / t,
        low=0.0, high=0.0296, degree=4, weight=lambda t: t,
    ),
    Row(
        name="tanh: (e^r - 1 - r) / r^2",
        function=_quotient(lambda r: mpmath.expm1(r) - r, 2),
        low=-0.3468, high=0.3468, degree=4, weight=np.abs,
    ),
    Row(
        name="erf: erf(x) / x in t = x^2",
        function=lambda t: mpmath.erf(mpmath.sqrt(t)) / mpmath.sqrt(t),
        low=0.0, high=0.82, degree=5,
    ),
    Row(
        name="erf: log2(1 - erf(x))",
        function=lambda x: mpmath.log(mpmath.erfc(x), 2),
        low=0.9, high=3.94, degree=6, weight=_complement,
    ),
    Row(
        name="erf: 2^r",
        function=lambda r: mpmath.mpf(2) ** r,
        low=-0.5, high=0.5, degree=5,
    ),
)  # fmt: skip


def main() -> None:
    """Fit every row and print it."""
    for row in ROWS:
        coefficients, error = fit(row)
        print(f"{row.name}: largest weighted error {error:.2e}")
        print("   ", tuple(float(np.float32(c)) for c in coefficients))


if __name__ == "__main__":
    main()
