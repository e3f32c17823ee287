"""ATen's further elementary functions, by those of the vocabulary."""

from __future__ import annotations

from math import inf, log, pi

from torch.fx import Node

from pockengine.frontend.rules.numbers import has_sign
from pockengine.frontend.rules.table import Legalizer, Value, rule


def _real(to: Legalizer, x: Value) -> Value:
    return to.cast(x, to.dtype)


@rule("tan.default")
def _tan(to: Legalizer, x: Node) -> Value:
    x = _real(to, x)
    return to.emit("div", to.emit("sin", x), to.emit("cos", x))


@rule("erfc.default")
def _erfc(to: Legalizer, x: Node) -> Value:
    return to.emit("sub", 1.0, to.emit("erf", _real(to, x)))


@rule("exp2.default")
def _exp2(to: Legalizer, x: Node) -> Value:
    return to.emit("pow", 2.0, _real(to, x))


@rule("log2.default")
def _log2(to: Legalizer, x: Node) -> Value:
    return to.emit("mul", to.emit("log", _real(to, x)), 1 / log(2))


@rule("log10.default")
def _log10(to: Legalizer, x: Node) -> Value:
    return to.emit("mul", to.emit("log", _real(to, x)), 1 / log(10))


@rule("cosh.default")
def _cosh(to: Legalizer, x: Node) -> Value:
    root = to.emit("exp", to.emit("mul", to.emit("abs", _real(to, x)), 0.5))
    half = to.emit("mul", root, 0.5)  # exp(|x|) / 2 without overflow
    return to.emit(
        "add", to.emit("mul", half, root), to.emit("div", 0.5, to.emit("mul", root, root))
    )


@rule("sinh.default")
def _sinh(to: Legalizer, x: Node) -> Value:
    x = _real(to, x)
    size = to.emit("abs", x)
    small = to.emit("expm1", size)
    ratio = to.emit("div", small, to.emit("add", small, 1.0))
    near = to.emit("mul", to.emit("add", small, ratio), 0.5)
    root = to.emit("exp", to.emit("mul", size, 0.5))
    far = to.emit("mul", to.emit("mul", root, 0.5), root)  # exp(|x|) / 2 without overflow
    found = to.emit("where", to.emit("gt", size, 20.0), far, near)
    return to.emit("where", has_sign(to, x), to.emit("neg", found), found)


@rule("asinh.default")
def _asinh(to: Legalizer, x: Node) -> Value:
    x = _real(to, x)
    size = to.emit("abs", x)
    square = to.emit("mul", size, size)
    root = to.emit("sqrt", to.emit("add", square, 1.0))
    tail = to.emit("div", square, to.emit("add", root, 1.0))
    near = to.emit("log1p", to.emit("add", size, tail))
    far = to.emit("add", to.emit("log", size), log(2))
    found = to.emit("where", to.emit("gt", size, 1e8), far, near)
    return to.emit("where", has_sign(to, x), to.emit("neg", found), found)


@rule("acosh.default")
def _acosh(to: Legalizer, x: Node) -> Value:
    x = _real(to, x)
    above = to.emit("sub", x, 1.0)
    root = to.emit("mul", to.emit("sqrt", above), to.emit("sqrt", to.emit("add", x, 1.0)))
    near = to.emit("log1p", to.emit("add", above, root))
    far = to.emit("add", to.emit("log", x), log(2))
    return to.emit("where", to.emit("gt", x, 1e8), far, near)


@rule("atanh.default")
def _atanh(to: Legalizer, x: Node) -> Value:
    x = _real(to, x)
    up, down = to.emit("log1p", x), to.emit("log1p", to.emit("neg", x))
    return to.emit("mul", to.emit("sub", up, down), 0.5)


@rule("atan.default")
def _atan(to: Legalizer, x: Node) -> Value:
    return to.emit("atan", _real(to, x))


@rule("asin.default")
def _asin(to: Legalizer, x: Node) -> Value:
    x = _real(to, x)
    rest = to.emit("mul", to.emit("sub", 1.0, x), to.emit("add", x, 1.0))
    return to.emit("atan", to.emit("div", x, to.emit("sqrt", rest)))


@rule("acos.default")
def _acos(to: Legalizer, x: Node) -> Value:
    x = _real(to, x)
    ratio = to.emit("div", to.emit("sub", 1.0, x), to.emit("add", x, 1.0))
    return to.emit("mul", to.emit("atan", to.emit("sqrt", ratio)), 2.0)


@rule("atan2.default")
def _atan2(to: Legalizer, y: Node, x: Node) -> Value:
    y, x = (to.expand(_real(to, v), to.shape) for v in (y, x))
    tall, wide = to.emit("abs", y), to.emit("abs", x)
    less, more = to.emit("minimum", tall, wide), to.emit("maximum", tall, wide)
    ratio = to.emit("div", less, more)
    ratio = to.emit("where", to.emit("eq", less, inf), 1.0, ratio)
    ratio = to.emit("where", to.emit("eq", more, 0.0), 0.0, ratio)
    angle = to.emit("atan", ratio)  # within the first octant
    steep = to.emit("sub", pi / 2, angle)
    angle = to.emit("where", to.emit("gt", tall, wide), steep, angle)
    angle = to.emit("where", has_sign(to, x), to.emit("sub", pi, angle), angle)
    return to.emit("where", has_sign(to, y), to.emit("neg", angle), angle)


@rule("hypot.default")
def _hypot(to: Legalizer, a: Node, b: Node) -> Value:
    a, b = (to.emit("abs", to.expand(_real(to, v), to.shape)) for v in (a, b))
    less, more = to.emit("minimum", a, b), to.emit("maximum", a, b)
    ratio = to.emit("div", less, more)
    ratio = to.emit("where", to.emit("eq", more, 0.0), 0.0, ratio)
    root = to.emit("sqrt", to.emit("add", to.emit("mul", ratio, ratio), 1.0))
    infinite = to.emit("logical_or", to.emit("eq", a, inf), to.emit("eq", b, inf))  # beside NaN too
    return to.emit("where", infinite, inf, to.emit("mul", more, root))


@rule("rrelu_with_noise_functional.default", "rrelu_with_noise.default")
def _rrelu(
    to: Legalizer,
    x: Node,
    noise: Node,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: Value = None,
) -> Value:
    del generator
    if training:
        raise NotImplementedError("RReLU in train mode; call its eval() first")
    return _leaky(to, x, x, (lower + upper) / 2), noise


@rule("rrelu_with_noise_backward.default")
def _rrelu_backward(
    to: Legalizer,
    grad: Node,
    x: Node,
    noise: Node,
    lower: float,
    upper: float,
    training: bool,
    is_result: bool,
) -> Value:
    del noise, is_result
    if training:
        raise NotImplementedError("RReLU in train mode; call its eval() first")
    return _leaky(to, grad, x, (lower + upper) / 2)


def _leaky(to: Legalizer, value: Node, x: Node, slope: float) -> Node:
    return to.emit("where", to.emit("gt", x, 0.0), value, to.emit("mul", value, slope))
