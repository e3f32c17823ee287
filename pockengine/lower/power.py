"""pow(x, y) of float32 as a TIR expression: the logarithm and the product in two-float arithmetic.

2^(y log2 x) needs y log2(x), up to 128, to a part in 2^32 of it, eight bits more than a float32
has. Sums of a float and a smaller one carry those bits (Dekker 1971; all partial products of
halved mantissas are exact, so fused multiply-add changes nothing).
"""

from __future__ import annotations

from math import inf

from tvm import tirx

from pockengine.lower.math import (
    ROUNDER,
    ROUNDER_BITS,
    Let,
    absolute,
    bits,
    elementary,
    exp_near_0,
    from_bits,
    log_parts,
    nan,
    polynomial,
    reciprocal,
    round_half_even,
    rsqrt,
    scale,
    splat,
    sqrt,
)
from pockengine.lower.nest import Expr

_LN_2 = 0.6931471805599453
_LOG2_E = (1.4426950216293335, 1.9259629911266175e-08)
_TWO_ATANH = (0.6666666865348816, 0.3999999463558197, 0.28572121262550354, 0.22175666689872742,
              0.19592200219631195)  # fmt: skip
_LARGE = 200.0  # 2^200 and 2^-200 are out of float32's range


def power(x: Expr, y: Expr) -> Expr:
    """x^y as torch.pow, with its special cases; a constant y such as 2 or 1/2 costs a product."""
    easy = {
        1.0: lambda x: x,
        2.0: lambda x: _product(x, 2),
        3.0: lambda x: _product(x, 3),
        0.5: sqrt,
        -0.5: rsqrt,
        -1.0: reciprocal,
    }
    constant = y.value if isinstance(y, tirx.Broadcast) else y
    if isinstance(constant, tirx.FloatImm) and constant.value in easy:
        return easy[constant.value](x)
    return _general_power(x, y)


@elementary
def _product(let: Let, x: Expr, count: int) -> Expr:
    """Product of ``count`` factors x."""
    x = let(x)
    result = x
    for _ in range(count - 1):
        result = result * x
    return result


@elementary
def _general_power(let: Let, x: Expr, y: Expr) -> Expr:
    """abs(x)^y, then the special cases of C99 F.10.4.4."""
    x, y = let(x), let(y)
    size = let(absolute(x))
    zero, one, infinite = splat(0.0, x), splat(1.0, x), splat(inf, x)
    regular = let(_exp2(*_times(let, y, *_log2(let, size))))
    value = let(tirx.Select(absolute(y) <= inf, regular, y + regular))
    value = let(tirx.Select(tirx.And(size == 1.0, absolute(y) <= inf), one, value))
    at_0 = tirx.Select(y < 0.0, infinite, tirx.Select(y > 0.0, zero, y))
    value = let(tirx.Select(size == 0.0, at_0, value))
    at_inf = tirx.Select(y < 0.0, zero, tirx.Select(y > 0.0, infinite, y))
    value = let(tirx.Select(size < inf, value, tirx.Select(size == inf, at_inf, x)))
    value = let(_signed(x, y, size, value))
    return tirx.Select(x == 1.0, one, tirx.Select(y == 0.0, one, value))


@elementary
def _signed(let: Let, x: Expr, y: Expr, size: Expr, value: Expr) -> Expr:
    """The power of x from that of its size: odd y keep the sign, fractional y have no power."""
    value = let(value)
    whole = let(round_half_even(y)) == y
    odd = tirx.And(whole, tirx.Not(let(round_half_even(y * 0.5)) == y * 0.5))
    flipped = from_bits(bits(value) ^ (bits(x) & -0x80000000))
    negative = tirx.And(x < 0.0, size < inf)
    fractional = tirx.Select(whole, value, nan(x))
    return tirx.Select(odd, flipped, tirx.Select(negative, fractional, value))


def _log2(let: Let, x: Expr) -> tuple[Expr, Expr]:
    """log2(x) of a positive finite x as high + low.

    x = 2^e m; log(m) = 2 atanh(s), s = (m - 1) / (m + 1) to twice the precision.
    """
    f, exponent = log_parts(let, x)
    total = let(f + 2.0)
    lost = let(f - let(total - 2.0))
    s = let(f / total)
    s_head, s_tail = _split(let, s)
    head, tail = _split(let, total)
    rest = let(let(f - s_head * head) - s_head * tail)
    rest = let(let(rest - s_tail * head) - s_tail * tail)
    s_low = let((rest - s * lost) / total)
    square = let(s * s)
    small = let(s * square * polynomial(square, _TWO_ATANH) + (square + 1.0) * s_low * 2.0)
    high = let(s * 2.0 + small)
    low = let(small - let(high - s * 2.0))
    scaled, scaled_low = _times(let, splat(_LOG2_E[0], x), high, low)
    result = let(exponent + scaled)
    error = let(scaled - let(result - exponent))
    return result, let(error + (scaled_low + high * _LOG2_E[1]))


def _times(let: Let, y: Expr, high: Expr, low: Expr) -> tuple[Expr, Expr]:
    """Product y (high + low) as high + low."""
    product = let(y * high)
    y_head, y_tail = _split(let, y)
    head, tail = _split(let, high)
    error = let(y_head * head - product)
    error = let(error + y_head * tail)
    error = let(error + y_tail * head)
    return product, let(error + y_tail * tail + y * low)


def _split(let: Let, x: Expr) -> tuple[Expr, Expr]:
    """Halves of x: it is a sum of two floats of twelve bits each."""
    head = let(from_bits(bits(x) & -0x1000))
    return head, let(x - head)


@elementary
def _exp2(let: Let, high: Expr, low: Expr) -> Expr:
    """2^(high + low), 0 or infinity where out of range."""
    low = tirx.Select(absolute(high) < _LARGE, low, splat(0.0, high))
    clamped = tirx.Select(high > _LARGE, splat(_LARGE, high), high)
    high = let(tirx.Select(high < -_LARGE, splat(-_LARGE, high), clamped))
    shifted = let(high + ROUNDER)
    r = let(let(high - let(shifted - ROUNDER)) + low)
    return scale(exp_near_0(r * _LN_2), bits(shifted) - ROUNDER_BITS)
