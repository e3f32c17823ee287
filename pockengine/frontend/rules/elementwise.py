"""Elementwise ATen ops."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from pockengine.frontend.rules.table import RULES, Legalizer, Rule, Value, rule
from pockengine.ir.graph import type_of
from pockengine.ir.types import DType

_UNARY = "neg exp expm1 log log1p sqrt rsqrt tanh sigmoid erf sin cos abs sign floor round".split()
_BINARY = {"mul": "mul", "maximum": "maximum", "minimum": "minimum", "pow": "pow"}
_COMPARE = "eq ne lt le gt ge".split()
_OVERLOADS = ("Tensor", "Scalar", "default")


def _float_unary(op: str) -> Rule:
    def legalize(to: Legalizer, x: Value) -> Value:
        return to.emit(op, to.cast(x, to.dtype))

    return legalize


def _arithmetic(op: str) -> Rule:
    def legalize(to: Legalizer, a: Value, b: Value) -> Value:
        return to.emit(op, to.cast(a, to.dtype), to.cast(b, to.dtype))

    return legalize


def promoted(a: Value, b: Value) -> DType:
    """The dtype in which PyTorch compares two operands."""
    probes: list[Any] = [
        torch.empty((1,) * min(1, len(type_of(v).shape)), dtype=type_of(v).dtype.torch)
        if isinstance(v, Node)
        else v
        for v in (a, b)
    ]
    return DType.of(torch.result_type(*probes))


def _comparison(op: str) -> Rule:
    def legalize(to: Legalizer, a: Value, b: Value) -> Value:
        dtype = promoted(a, b)
        return to.emit(op, to.cast(a, dtype), to.cast(b, dtype))

    return legalize


for _name in _UNARY:
    RULES[f"{_name}.default"] = _float_unary(_name)
for _name, _op in _BINARY.items():
    for _overload in (*_OVERLOADS, "Tensor_Tensor"):
        RULES[f"{_name}.{_overload}"] = _arithmetic(_op)
for _name in _COMPARE:
    for _overload in _OVERLOADS:
        RULES[f"{_name}.{_overload}"] = _comparison(_name)


@rule("add.Tensor", "add.Scalar")
def _add(to: Legalizer, a: Value, b: Value, alpha: float = 1) -> Value:
    a, b = to.cast(a, to.dtype), to.cast(b, to.dtype)
    if alpha != 1:
        b = b * alpha if not isinstance(b, Node) else to.emit("mul", b, alpha)
    return to.emit("logical_or" if to.dtype is DType.BOOL else "add", a, b)


@rule("sub.Tensor", "sub.Scalar")
def _sub(to: Legalizer, a: Value, b: Value, alpha: float = 1) -> Value:
    a, b = to.cast(a, to.dtype), to.cast(b, to.dtype)
    if alpha != 1:
        b = b * alpha if not isinstance(b, Node) else to.emit("mul", b, alpha)
    return to.emit("sub", a, b)


@rule("rsub.Scalar", "rsub.Tensor")
def _rsub(to: Legalizer, a: Value, b: Value, alpha: float = 1) -> Value:
    return _sub(to, b, a, alpha)


@rule("div.Tensor", "div.Scalar", "true_divide.Tensor")
def _div(to: Legalizer, a: Value, b: Value) -> Value:
    return to.emit("div", to.cast(a, to.dtype), to.cast(b, to.dtype))


@rule("reciprocal.default")
def _reciprocal(to: Legalizer, x: Value) -> Value:
    return to.emit("div", 1.0, to.cast(x, to.dtype))


@rule("pow.Tensor_Scalar")
def _pow(to: Legalizer, x: Value, exponent: float) -> Value:
    x = to.cast(x, to.dtype)
    if exponent in (1, 2, 3, 4):
        square = x if exponent == 1 else to.emit("mul", x, x)
        if exponent == 3:
            return to.emit("mul", square, x)
        return to.emit("mul", square, square) if exponent == 4 else square
    if exponent in (0.5, -0.5):
        return to.emit("sqrt" if exponent > 0 else "rsqrt", x)
    if exponent in (-1, -2):
        return to.emit("div", 1.0, x if exponent == -1 else to.emit("mul", x, x))
    return to.emit("pow", x, float(exponent))


@rule("pow.Scalar")
def _pow_scalar(to: Legalizer, base: float, exponent: Value) -> Value:
    if not to.dtype.is_float:
        raise NotImplementedError("a whole number to the power of whole numbers")
    return to.emit("pow", float(base), to.cast(exponent, to.dtype))


@rule("clamp.default", "clamp.Tensor", "hardtanh.default")
def _clamp(to: Legalizer, x: Value, low: Value = None, high: Value = None) -> Value:
    x = to.cast(x, to.dtype)
    if low is not None:
        x = to.emit("maximum", x, to.cast(low, to.dtype))
    return x if high is None else to.emit("minimum", x, to.cast(high, to.dtype))


@rule("clamp_min.default", "clamp_min.Tensor")
def _clamp_min(to: Legalizer, x: Value, low: Value) -> Value:
    return _clamp(to, x, low)


@rule("clamp_max.default", "clamp_max.Tensor")
def _clamp_max(to: Legalizer, x: Value, high: Value) -> Value:
    return _clamp(to, x, None, high)


@rule("relu.default")
def _relu(to: Legalizer, x: Value) -> Value:
    return to.emit("maximum", x, 0.0 if to.dtype.is_float else 0)


@rule("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def _where(to: Legalizer, condition: Value, a: Value, b: Value) -> Value:
    mask = to.cast(condition, DType.BOOL)
    return to.emit("where", mask, to.cast(a, to.dtype), to.cast(b, to.dtype))


@rule("logical_and.default")
def _and(to: Legalizer, a: Value, b: Value) -> Value:
    return to.emit("logical_and", to.cast(a, DType.BOOL), to.cast(b, DType.BOOL))


@rule("logical_or.default")
def _or(to: Legalizer, a: Value, b: Value) -> Value:
    return to.emit("logical_or", to.cast(a, DType.BOOL), to.cast(b, DType.BOOL))


@rule("logical_not.default")
def _not(to: Legalizer, x: Value) -> Value:
    return to.emit("logical_not", to.cast(x, DType.BOOL))


@rule("_to_copy.default", "convert_element_type.default", "to.dtype")
def _to_copy(to: Legalizer, x: Value, *_: Value, **__: Value) -> Value:
    return to.cast(x, to.dtype)


@rule("copy.default")
def _copy(to: Legalizer, x: Node, source: Value) -> Value:
    del x  # only its shape and dtype count
    return to.expand(to.cast(source, to.dtype), to.shape)


@rule(
    "clone.default",
    "alias.default",
    "detach.default",
    "lift_fresh_copy.default",
    "contiguous.default",
    "copy_strided.default",
)
def _same(to: Legalizer, x: Value, *_: Value, **__: Value) -> Value:
    del to  # strides are the layout's matter
    return x
