"""ATen ops on whole numbers, remainders, bits, and tests of special values."""

from __future__ import annotations

from math import inf

from torch.fx import Node

from pockengine.frontend.rules.places import bind
from pockengine.frontend.rules.table import Legalizer, Rule, Value, rule
from pockengine.ir.graph import is_op, type_of
from pockengine.ir.types import DType


def _both(to: Legalizer, a: Value, b: Value) -> tuple[Value, Value]:
    return to.cast(a, to.dtype), to.cast(b, to.dtype)


def _is_negative(to: Legalizer, x: Value) -> Value:
    return to.emit("lt", x, 0.0 if to.dtype.is_float else 0) if isinstance(x, Node) else x < 0


@rule("fmod.Tensor", "fmod.Scalar")
def _fmod(to: Legalizer, a: Value, b: Value) -> Value:
    return to.emit("fmod", *_both(to, a, b))


@rule("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def remainder(to: Legalizer, a: Value, b: Value) -> Value:
    """The remainder with the sign of the divisor, as Python's."""
    a, b = _both(to, a, b)
    rest = to.emit("fmod", a, b)
    return to.emit("where", _rounds_up(to, rest, b), to.emit("add", rest, b), rest)


def _rounds_up(to: Legalizer, rest: Node, b: Value) -> Node:
    """Where a quotient rounded to zero is not yet rounded down, from the rest of its division."""
    wrong = to.emit("ne", _is_negative(to, rest), _is_negative(to, b))
    nonzero = to.emit("ne", rest, 0.0 if to.dtype.is_float else 0)
    return to.emit("logical_and", nonzero, wrong)


@rule("div.Tensor_mode", "div.Scalar_mode")
def _div_mode(to: Legalizer, a: Value, b: Value, *, rounding_mode: str | None = None) -> Value:
    a, b = _both(to, a, b)
    if rounding_mode is None:
        return to.emit("div", a, b)
    if rounding_mode == "trunc":
        return trunc(to, to.emit("div", a, b)) if to.dtype.is_float else to.emit("quotient", a, b)
    if not to.dtype.is_float:
        return to.emit("quotient", to.emit("sub", a, remainder(to, a, b)), b)
    return _float_floor(to, a, b)


def _float_floor(to: Legalizer, a: Value, b: Value) -> Node:
    """The quotient rounded down; the rest is taken off first: an infinite b gives 0 or -1."""
    rest = to.emit("fmod", a, b)
    near = to.emit("round", to.emit("div", to.emit("sub", a, rest), b))
    whole = to.emit("where", _rounds_up(to, rest, b), to.emit("sub", near, 1.0), near)
    by_zero = to.emit("eq", b, 0.0) if isinstance(b, Node) else None
    plain = to.emit("div", a, b)
    if by_zero is not None:
        return to.emit("where", by_zero, plain, whole)
    return whole if b else plain


@rule("floor_divide.default")
def _floor_divide(to: Legalizer, a: Value, b: Value) -> Value:
    return _div_mode(to, a, b, rounding_mode="floor")


@rule("trunc.default", "fix.default")
def _trunc(to: Legalizer, x: Node) -> Value:
    return trunc(to, x)


def trunc(to: Legalizer, x: Node) -> Node:
    """The whole part of each element."""
    if not type_of(x).dtype.is_float:
        return x
    return to.emit("where", to.emit("lt", x, 0.0), _ceil(to, x), to.emit("floor", x))


@rule("ceil.default")
def _ceil(to: Legalizer, x: Node) -> Node:
    if not type_of(x).dtype.is_float:
        return x
    return to.emit("neg", to.emit("floor", to.emit("neg", x)))


@rule("round.decimals")
def _round(to: Legalizer, x: Node, *, decimals: int = 0) -> Value:
    scale = 10.0 ** abs(decimals)
    there, back = ("mul", "div") if decimals >= 0 else ("div", "mul")
    return to.emit(back, to.emit("round", to.emit(there, x, scale)), scale)


def _bitwise(op: str, logical: str) -> Rule:
    def legalize(to: Legalizer, a: Value, b: Value) -> Value:
        a, b = _both(to, a, b)
        return to.emit(logical if to.dtype is DType.BOOL else op, a, b)

    return legalize


for _overload in ("Tensor", "Scalar"):
    rule(f"bitwise_and.{_overload}", f"__and__.{_overload}")(_bitwise("bitand", "logical_and"))
    rule(f"bitwise_or.{_overload}", f"__or__.{_overload}")(_bitwise("bitor", "logical_or"))
    rule(f"bitwise_xor.{_overload}", f"__xor__.{_overload}")(_bitwise("bitxor", "ne"))


@rule("bitwise_not.default")
def _bitwise_not(to: Legalizer, x: Node) -> Value:
    if to.dtype is DType.BOOL:
        return to.emit("logical_not", x)
    return to.emit("sub", to.emit("neg", x), 1)


def _power_of_two(count: Value, *, name: str) -> int:
    if isinstance(count, Node) or count < 0:
        raise NotImplementedError(f"{name} by counts that are data")
    return int(2**count)


@rule("__lshift__.Scalar", "bitwise_left_shift.Tensor_Scalar")
def _left_shift(to: Legalizer, x: Node, count: Value) -> Value:
    return to.emit("mul", x, _power_of_two(count, name="shifts"))


@rule("__rshift__.Scalar", "bitwise_right_shift.Tensor_Scalar")
def _right_shift(to: Legalizer, x: Node, count: Value) -> Value:
    return _div_mode(to, x, _power_of_two(count, name="shifts"), rounding_mode="floor")


@rule("logical_xor.default")
def _logical_xor(to: Legalizer, a: Value, b: Value) -> Value:
    return to.emit("ne", to.cast(a, DType.BOOL), to.cast(b, DType.BOOL))


def _never(to: Legalizer) -> Node:
    return to.emit("full", to.shape, False, "bool")


def is_nan(to: Legalizer, x: Node) -> Node:
    """Where elements are NaN; integers never are."""
    return to.emit("ne", x, x) if type_of(x).dtype.is_float else _never(to)


@rule("isnan.default")
def _isnan(to: Legalizer, x: Node) -> Value:
    return is_nan(to, x)


@rule("isinf.default")
def _isinf(to: Legalizer, x: Node) -> Value:
    if not type_of(x).dtype.is_float:
        return _never(to)
    return to.emit("eq", to.emit("abs", x), inf)


@rule("signbit.default")
def _signbit(to: Legalizer, x: Node) -> Value:
    return has_sign(to, x)


def has_sign(to: Legalizer, x: Node) -> Node:
    """Where elements are negative, -0 included."""
    if not type_of(x).dtype.is_float:
        return to.emit("lt", x, 0)
    is_zero = to.emit("eq", x, 0.0)
    return to.emit("lt", to.emit("where", is_zero, to.emit("div", 1.0, x), x), 0.0)


@rule("copysign.Tensor", "copysign.Scalar")
def _copysign(to: Legalizer, x: Value, sign: Value) -> Value:
    size = to.emit("abs", to.cast(x, to.dtype))
    if not isinstance(sign, Node):
        return to.emit("neg", size) if sign < 0 else size
    return to.emit("where", has_sign(to, sign), to.emit("neg", size), size)


def _ignoring_nan(op: str) -> Rule:
    def legalize(to: Legalizer, a: Node, b: Node) -> Value:
        a, b = (to.expand(to.cast(v, to.dtype), to.shape) for v in (a, b))
        other = to.emit("where", to.emit("ne", b, b), a, to.emit(op, a, b))
        return to.emit("where", to.emit("ne", a, a), b, other)

    return legalize


rule("fmax.default")(_ignoring_nan("maximum"))
rule("fmin.default")(_ignoring_nan("minimum"))


@rule("_assert_async.msg", "_assert_async.default", "_assert_scalar.default")
def _assert_async(to: Legalizer, condition: Node, *_: Value) -> Value:
    bound_by(to, condition)  # nothing is computed


def bound_by(to: Legalizer, condition: Node) -> None:
    """Turn ``amin(x) >= low`` and ``amax(x) < high`` into bounds of the input that x comes from."""
    if not is_op(condition, "ge", "lt") or not isinstance(condition.args[1], int):
        return
    extremum = condition.args[0]
    if is_op(extremum, "amin", "amax"):
        assert isinstance(extremum, Node)
        source, number = extremum.args[0], int(condition.args[1])
        assert isinstance(source, Node)
        whole = 2**62
        low, high = (number, whole) if is_op(condition, "ge") else (-whole, number)
        bind(to, source, low, high)
