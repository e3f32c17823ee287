"""The arc tangent of float32 as a TIR expression."""

from __future__ import annotations

from math import inf, pi

from tvm import tirx

from pockengine.lower.math import (
    Let,
    absolute,
    copy_sign,
    elementary,
    is_nan,
    polynomial,
    splat,
)
from pockengine.lower.nest import Expr

_TAN_PI_8 = 0.4142135623730950
_TAN_3_PI_8 = 2.414213562373095
_ATAN = (-3.33329491539e-1, 1.99777106478e-1, -1.38776856032e-1, 8.05374449538e-2)
"""Cephes, atanf: atan(x) / x - 1 over x^2, for |x| below tan(pi / 8)."""


@elementary
def atan(let: Let, x: Expr) -> Expr:
    """The arc tangent: |x| is folded to at most tan(pi / 8) around 0, pi / 4 or pi / 2."""
    x = let(x)
    size = let(absolute(x))
    is_far, is_near = size > _TAN_3_PI_8, size > _TAN_PI_8
    middle = let((size - 1.0) / (size + 1.0))
    folded = let(tirx.Select(is_near, middle, size))
    folded = let(tirx.Select(is_far, splat(-1.0, x) / size, folded))
    start = let(tirx.Select(is_near, splat(pi / 4, x), splat(0.0, x)))
    start = let(tirx.Select(is_far, splat(pi / 2, x), start))
    square = let(folded * folded)
    curve = let(polynomial(square, _ATAN) * square * folded)
    found = let(start + (curve + folded))
    signed = copy_sign(absolute(found), x)
    return tirx.Select(size <= inf, tirx.Select(is_nan(x), x, signed), x)
