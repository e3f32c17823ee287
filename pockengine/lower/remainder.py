"""The remainder of float32 division as a TIR expression."""

from __future__ import annotations

from math import inf

from tvm import tirx

from pockengine.lower.math import (
    Let,
    absolute,
    bits,
    copy_sign,
    elementary,
    floor,
    from_bits,
    nan,
)
from pockengine.lower.nest import Expr

_LARGEST = 3.4028234663852886e38
_STEPS = (2.0**24, 2.0**12, 1.0)


@elementary
def fmod(let: Let, a: Expr, b: Expr) -> Expr:
    """The remainder of a / b with the sign of a, as C's fmod.

    Right to the rounding of b for quotients below 2^36: whole multiples of b are taken off in steps
    of 12 bits of the quotient, whose products with the halves of b are exact.
    """
    a, b = let(a), let(b)
    dividend, size = let(absolute(a)), let(absolute(b))
    top = let(from_bits(bits(size) & -0x1000))
    low = let(size - top)
    rest = dividend
    for step in _STEPS:
        unit = let(size * step)
        whole = let(floor(let(rest / unit)))
        count = let(whole * step)
        rest = let(let(rest - count * top) - count * low)
        rest = let(tirx.Select(rest < 0.0, rest + unit, rest))
        rest = let(tirx.Select(rest >= unit, rest - unit, rest))
    rest = let(tirx.Select(size <= _LARGEST, rest, dividend))
    signed = let(copy_sign(absolute(rest), a))
    known = tirx.And(tirx.And(dividend <= _LARGEST, size > 0.0), size <= inf)
    return tirx.Select(known, signed, nan(a))
