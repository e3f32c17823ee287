"""Elementary functions of float32 as TIR expressions: no libm, no branches, NaN as in PyTorch.

Every function maps expressions to an expression and works on scalars and on vectors alike: loop
variables that are vectorized later, or values loaded through a Ramp. Errors are at most 4 units in
the last place, as tests/lower/test_math.py measures. Coefficients come from
experiments/kernels/fit.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from math import inf
from typing import Concatenate, ParamSpec

from tvm import tirx

from pockengine.lower.nest import Expr

Let = Callable[[Expr], Expr]
Arguments = ParamSpec("Arguments")

ROUNDER = 12582912.0  # 1.5 * 2^23: adding it leaves an integer in the low mantissa bits
ROUNDER_BITS = 0x4B400000
_INTEGRAL = 8388608.0  # 2^23: from here on every float32 is an integer
_MIN_NORMAL = 2.0**-126
_ROOT_HALF_BITS = 0x3F3504F3
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.693145751953125  # 16 bits, so that products with exponents are exact
_LN2_LOW = 1.4286068203094172e-06
_TWO_OVER_PI = 0.6366197723675814
_HALF_PI = (1.5703125, 0.0004837512969970703, 7.549533620476723e-08, 2.5633440682570896e-12)

_EXP = (0.5, 0.166665181517601, 0.04166620597243309, 0.008368928916752338, 0.00139505579136312)
_EXPM1 = (0.5, 0.1666666716337204, 0.04166635498404503, 0.00833327416330576, 0.0013941079378128052,
          0.00019913654250558466)  # fmt: skip
_LOG = (0.3333331048488617, -0.24999986588954926, 0.20002231001853943, -0.1666925996541977,
        0.14218556880950928, -0.12384121119976044, 0.11873544752597809, -0.11791516840457916,
        0.0691617950797081)  # fmt: skip
_SIN = (-0.1666666716337204, 0.008333329111337662, -0.00019839315791614354, 2.718121777434135e-06)
_COS = (0.0416666679084301, -0.0013888883404433727, 2.4799499442451634e-05, -2.7208474762119295e-07)
_TANH = (0.5, 0.16666541993618011, 0.04166628047823906, 0.008366621099412441, 0.0013946511317044497)
_TANH_LIMIT = 9.02  # from here on tanh rounds to 1
_ERF_NEAR = (0.1283791670955126, -0.3761252760887146, 0.11282157152891159, -0.02677910029888153,
             0.005011705681681633, -0.0006086559151299298)  # fmt: skip
_ERF_FAR = (-0.00025606038980185986, -1.626998782157898, -0.9190828800201416, -0.15009425580501556,
            0.03213908523321152, -0.004408321343362331, 0.00028447434306144714)  # fmt: skip
_ERF_EXP2 = (1.0000001192092896, 0.6931472420692444, 0.2402210682630539, 0.05550297349691391,
             0.009676036424934864, 0.0013409999664872885)  # fmt: skip
_ERF_SPLIT = 0.9
_ERF_LIMIT = 3.94  # from here on erf rounds to 1


def elementary(function: Callable[Concatenate[Let, Arguments], Expr]) -> Callable[Arguments, Expr]:
    """Gives a function of expressions a first argument ``let``, which binds a value to a name.

    What occurs more than once is bound, so the simplifier cannot cancel ``(x + c) - c``. The result
    is one chain of Lets with none inside their values, which `nest.held` turns into statements; do
    that, for TVM's analyzers take time exponential in the length of a chain. So a function that
    uses another one binds its result.
    """

    @wraps(function)
    def wrapped(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Expr:
        bindings: list[tuple[Expr, Expr]] = []

        def let(value: Expr) -> Expr:
            while isinstance(value, tirx.Let):
                bindings.append((value.var, value.value))
                value = value.body
            if isinstance(value, (tirx.Var, tirx.FloatImm, tirx.IntImm)):
                return value
            name = tirx.Var("t", value.ty)
            bindings.append((name, value))
            return name

        result = function(let, *args, **kwargs)
        for name, value in reversed(bindings):
            result = tirx.Let(name, value, result)
        return result

    return wrapped


def lanes_of(x: Expr) -> int:
    """The number of vector lanes of an expression; 1 for scalars."""
    return int(x.ty.dtype.lanes)


def splat(value: float, like: Expr) -> Expr:
    """A float32 constant with as many lanes as ``like``."""
    return _spread(tirx.FloatImm("float32", value), like)


def nan(like: Expr) -> Expr:
    """A quiet NaN with as many lanes as ``like``."""
    return _spread(tirx.reinterpret("float32", tirx.IntImm("int32", 0x7FC00000)), like)


def bits(x: Expr) -> Expr:
    """The int32 with the bits of a float32."""
    return tirx.reinterpret(_type("int32", x), x)


def from_bits(x: Expr) -> Expr:
    """The float32 with the bits of an int32."""
    return tirx.reinterpret(_type("float32", x), x)


def is_nan(x: Expr) -> Expr:
    """Whether x is NaN, by its bits: ``x != x`` is an ordered comparison in TVM, never true."""
    return (bits(x) & 0x7FFFFFFF) > 0x7F800000


def absolute(x: Expr) -> Expr:
    """The absolute value."""
    return from_bits(bits(x) & 0x7FFFFFFF)


def copy_sign(magnitude: Expr, sign_of: Expr) -> Expr:
    """A magnitude, whose sign bit must be clear, with the sign of another value."""
    return from_bits(bits(magnitude) | (bits(sign_of) & -0x80000000))


@elementary
def maximum(let: Let, a: Expr, b: Expr) -> Expr:
    """The larger; NaN where either is NaN, as torch.maximum."""
    a, b = let(a), let(b)
    return tirx.Select(a <= inf, tirx.Select(a > b, a, b), a)


@elementary
def minimum(let: Let, a: Expr, b: Expr) -> Expr:
    """The smaller; NaN where either is NaN, as torch.minimum."""
    a, b = let(a), let(b)
    return tirx.Select(a <= inf, tirx.Select(a < b, a, b), a)


@elementary
def clamp(let: Let, x: Expr, low: float | None = None, high: float | None = None) -> Expr:
    """Bounds x to [low, high], where None does not bound; NaN stays NaN."""
    x = let(x)
    if low is not None:
        x = let(tirx.Select(x < low, splat(low, x), x))
    if high is not None:
        x = let(tirx.Select(x > high, splat(high, x), x))
    return x


def relu(x: Expr) -> Expr:
    """max(x, 0); NaN stays NaN."""
    return clamp(x, low=0.0)


@elementary
def sign(let: Let, x: Expr) -> Expr:
    """-1, 0 or 1; 0 for NaN, as torch.sign."""
    x = let(x)
    zero = splat(0.0, x)
    negative = tirx.Select(x < 0.0, splat(-1.0, x), zero)
    return tirx.Select(x > 0.0, splat(1.0, x), negative)


@elementary
def round_half_even(let: Let, x: Expr) -> Expr:
    """The nearest integer, ties to the even one, as torch.round; keeps NaN, infinities and -0."""
    x = let(x)
    size = let(absolute(x))
    shifted = let(size + _INTEGRAL)
    return copy_sign(tirx.Select(size < _INTEGRAL, shifted - _INTEGRAL, size), x)


@elementary
def floor(let: Let, x: Expr) -> Expr:
    """The largest integer not above x; keeps NaN, infinities and -0."""
    x = let(x)
    nearest = let(round_half_even(x))
    return tirx.Select(nearest > x, nearest - 1.0, nearest)


def reciprocal(x: Expr) -> Expr:
    """1 / x."""
    return splat(1.0, x) / x


def sqrt(x: Expr) -> Expr:
    """The square root: an instruction on every target with a float unit."""
    return tirx.sqrt(x)


def rsqrt(x: Expr) -> Expr:
    """1 / sqrt(x)."""
    return reciprocal(sqrt(x))


@elementary
def exp(let: Let, x: Expr) -> Expr:
    """e^x: x = n ln 2 + r with ln 2 in two parts, a polynomial in r, times 2^n in two steps.

    Underflow is gradual where the processor's is.
    """
    x = let(clamp(x, low=-104.0, high=89.0))
    shifted = let(x * _LOG2_E + ROUNDER)
    r = let(_minus_ln2(x, let(shifted - ROUNDER)))
    return scale(exp_near_0(r), bits(shifted) - ROUNDER_BITS)


@elementary
def exp_near_0(let: Let, r: Expr) -> Expr:
    """e^r for abs(r) <= ln(2) / 2."""
    r = let(r)
    return r * r * polynomial(r, _EXP) + r + 1.0


@elementary
def expm1(let: Let, x: Expr) -> Expr:
    """e^x - 1, accurate near 0: with p = e^r - 1 and h = 2^(n-1), it is 2 (h p + (h - 1/2))."""
    x = let(clamp(x, low=-18.0, high=89.0))
    shifted = let(x * _LOG2_E + ROUNDER)
    r = let(_minus_ln2(x, let(shifted - ROUNDER)))
    half = let(power_of_two(bits(shifted) - (ROUNDER_BITS + 1)))
    value = (half * (r * r * polynomial(r, _EXPM1) + r) + (half - 0.5)) * 2.0
    return tirx.Select(absolute(x) < 2.0**-25, x, value)


@elementary
def sigmoid(let: Let, x: Expr) -> Expr:
    """1 / (1 + e^-x), formed from e^-abs(x), so that nothing overflows."""
    x = let(x)
    decay = let(exp(from_bits(bits(x) | -0x80000000)))
    return tirx.Select(x < 0.0, decay, splat(1.0, x)) / (decay + 1.0)


@elementary
def tanh(let: Let, x: Expr) -> Expr:
    """Hyperbolic tangent: g / (g + 1) with g = (e^2x - 1) / 2, as in expm1."""
    x = let(x)
    twice = let(clamp(absolute(x) * 2.0, high=2.0 * _TANH_LIMIT))
    shifted = let(twice * _LOG2_E + ROUNDER)
    r = let(_minus_ln2(twice, let(shifted - ROUNDER)))
    half = let(power_of_two(bits(shifted) - (ROUNDER_BITS + 1)))
    g = let(half * (r * r * polynomial(r, _TANH) + r) + (half - 0.5))
    return copy_sign(g / (g + 1.0), x)


@elementary
def erf(let: Let, x: Expr) -> Expr:
    """The error function: x + x P(x^2) near 0, else 1 - 2^Q(x)."""
    x = let(x)
    size = let(clamp(absolute(x), high=_ERF_LIMIT))
    exponent = let(polynomial(size, _ERF_FAR))
    shifted = let(exponent + ROUNDER)
    r = let(exponent - let(shifted - ROUNDER))
    power = power_of_two(bits(shifted) - ROUNDER_BITS)
    near = size * polynomial(let(size * size), _ERF_NEAR) + size
    far = splat(1.0, x) - polynomial(r, _ERF_EXP2) * power
    return copy_sign(tirx.Select(size < _ERF_SPLIT, near, far), x)


@elementary
def log(let: Let, x: Expr) -> Expr:
    """The natural logarithm; -inf of 0, NaN of negative numbers."""
    x = let(x)
    fraction, exponent = log_parts(let, x)
    return _log_or_special(x, let(_log_sum(fraction, exponent)), pole=0.0)


@elementary
def log1p(let: Let, x: Expr) -> Expr:
    """log(1 + x), accurate near 0: with 2^e from 1 + x, f = 2^-e x + (2^-e - 1)."""
    x = let(x)
    big = x > 2.0**64  # there 1 + x is x, and 2^-e could be subnormal
    scaled = let(tirx.Select(big, x * 2.0**-32, x))
    exponent = let((bits(scaled + 1.0) - _ROOT_HALF_BITS) >> 23)
    down = let(power_of_two(_integer(0, x) - exponent))
    fraction = let(scaled * down + tirx.Select(big, splat(-1.0, x), down - 1.0))
    whole = _to_float(exponent) + tirx.Select(big, splat(32.0, x), splat(0.0, x))
    value = tirx.Select(absolute(x) < 2.0**-25, x, let(_log_sum(fraction, whole)))
    return _log_or_special(x, value, pole=-1.0)


def log_parts(let: Let, x: Expr) -> tuple[Expr, Expr]:
    """(f, e), both float32, of a positive finite x = 2^e (1 + f), 1 + f in [sqrt(1/2), sqrt(2)).

    f is exact; subnormal x are scaled first.
    """
    tiny = x < _MIN_NORMAL
    scaled = let(bits(tirx.Select(tiny, x * 2.0**24, x)))
    exponent = let((scaled - _ROOT_HALF_BITS) >> 23)
    fraction = let(from_bits(scaled - (exponent << 23)) - 1.0)
    offset = tirx.Select(tiny, splat(-24.0, x), splat(0.0, x))
    return fraction, let(_to_float(exponent) + offset)


@elementary
def _log_sum(let: Let, f: Expr, e: Expr) -> Expr:
    """Sum e ln 2 + log(1 + f), the small terms first."""
    f, e = let(f), let(e)
    square = let(f * f)
    small = f * square * polynomial(f, _LOG) + e * _LN2_LOW - square * 0.5
    return (f + small) + e * _LN2_HIGH


def _log_or_special(x: Expr, value: Expr, pole: float) -> Expr:
    """The value inside the domain; -inf at the pole, NaN below it, inf and NaN as they are."""
    outside = tirx.Select(x < pole, nan(x), splat(-inf, x))
    finite = tirx.Select(x < inf, value, x)
    return tirx.Select(x <= pole, outside, finite)


def sin(x: Expr) -> Expr:
    """The sine; see _quarter."""
    return _quarter(x, 0)


def cos(x: Expr) -> Expr:
    """The cosine; see _quarter."""
    return _quarter(x, 1)


@elementary
def _quarter(let: Let, x: Expr, turn: int) -> Expr:
    """sin(x + turn pi / 2): x - k pi / 2 with pi / 2 in four parts, then one of two polynomials.

    To abs(x) = 12800 (k < 2^13: all but the last product are exact) within 4 ulp. From there to
    6.5e6 the absolute error grows to about abs(x) 2^-24; beyond, the result is only bounded by 1.
    """
    x = let(x)
    shifted = let(x * _TWO_OVER_PI + ROUNDER)
    count = let(shifted - ROUNDER)
    r = x
    for part in _HALF_PI:
        r = let(r - count * part)
    r = let(clamp(r, low=-0.8, high=0.8))
    square = let(r * r)
    odd = r * square * polynomial(square, _SIN) + r
    even = square * square * polynomial(square, _COS) - square * 0.5 + 1.0
    quadrant = let(bits(shifted) + turn)
    value = tirx.Select((quadrant & 1) == _integer(0, x), odd, even)
    return from_bits(bits(value) ^ ((quadrant & 2) << 30))


def polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """The polynomial at the bound name x, coefficients lowest power first, by Horner's scheme."""
    value = splat(coefficients[-1], x)
    for coefficient in reversed(coefficients[:-1]):
        value = value * x + coefficient
    return value


def power_of_two(exponent: Expr) -> Expr:
    """2^exponent for int32 exponents in [-126, 127]."""
    return from_bits((exponent + 127) << 23)


@elementary
def scale(let: Let, x: Expr, exponent: Expr) -> Expr:
    """Product x 2^exponent, int32 in [-252, 254]: in two steps, so it over- and underflows."""
    x, exponent = let(x), let(exponent)
    first = let(exponent >> 1)
    return x * power_of_two(first) * power_of_two(exponent - first)


def _minus_ln2(x: Expr, n: Expr) -> Expr:
    """Difference x - n ln 2."""
    return (x - n * _LN2_HIGH) - n * _LN2_LOW


def _to_float(x: Expr) -> Expr:
    """An int32 as float32."""
    return tirx.Cast(_type("float32", x), x)


def _integer(value: int, like: Expr) -> Expr:
    """An int32 constant with as many lanes as ``like``."""
    return _spread(tirx.IntImm("int32", value), like)


def _spread(scalar: Expr, like: Expr) -> Expr:
    """A scalar in as many lanes as ``like`` has."""
    return scalar if lanes_of(like) == 1 else tirx.Broadcast(scalar, lanes_of(like))


def _type(scalar: str, like: Expr) -> str:
    """The type name of a scalar type in as many lanes as ``like`` has."""
    return scalar if lanes_of(like) == 1 else f"{scalar}x{lanes_of(like)}"
