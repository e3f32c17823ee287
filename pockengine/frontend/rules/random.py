"""ATen random numbers: each call is a draw of its own from the counter-based generator."""

from __future__ import annotations

from math import pi

from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer, Value, rule
from pockengine.ir.types import DType


@rule("native_dropout.default")
def _dropout(to: Legalizer, x: Node, p: float, train: bool | None) -> Value:
    if train is False:
        return x, to.emit("full", to.shape, True, "bool")
    keep = to.emit("lt", to.uniform(to.shape), 1.0 - p)
    scale = 0.0 if p == 1 else 1.0 / (1.0 - p)
    return to.emit("mul", to.emit("mul", x, to.cast(keep, to.dtype)), scale), keep


@rule("bernoulli.p")
def _bernoulli(to: Legalizer, x: Value, p: float, **_: Value) -> Value:
    del x  # only its shape counts
    return to.cast(to.emit("lt", to.uniform(to.shape), float(p)), to.dtype)


@rule("bernoulli.default")
def _bernoulli_each(to: Legalizer, p: Node, **_: Value) -> Value:
    return to.cast(to.emit("lt", to.uniform(to.shape), p), to.dtype)


@rule("rand.default", "rand_like.default")
def _rand(to: Legalizer, *_: Value, **__: Value) -> Value:
    return to.cast(to.uniform(to.shape), to.dtype)


@rule("uniform.default")
def _uniform(to: Legalizer, x: Value, low: float = 0.0, high: float = 1.0, **_: Value) -> Value:
    del x
    scaled = to.emit("mul", to.uniform(to.shape), float(high - low))
    return to.cast(to.emit("add", scaled, float(low)), to.dtype)


@rule("exponential.default")
def _exponential(to: Legalizer, x: Value, rate: float = 1.0, **_: Value) -> Value:
    del x
    waited = to.emit("neg", to.emit("log1p", to.emit("neg", to.uniform(to.shape))))
    return to.cast(to.emit("div", waited, float(rate)), to.dtype)


@rule("randperm.default")
def _randperm(to: Legalizer, *_: Value, **__: Value) -> Value:
    return to.emit("sort_places", to.uniform(to.shape), 0, False)


@rule("normal_functional.default")
def _normal_like(to: Legalizer, x: Value, mean: float = 0.0, std: float = 1.0, **_: Value) -> Value:
    del x
    return _normal(to, mean, std)


@rule("normal.float_float", "normal.Tensor_float", "normal.float_Tensor", "normal.Tensor_Tensor")
def _normal(to: Legalizer, mean: Value = 0.0, std: Value = 1.0, *_: Value, **__: Value) -> Value:
    return to.emit("add", to.emit("mul", _randn(to), std), mean)


@rule("randn.default", "randn_like.default")
def _randn(to: Legalizer, *_: Value, **__: Value) -> Value:
    """Box and Muller 1958, from two draws."""
    radius = to.emit("mul", to.emit("log1p", to.emit("neg", to.uniform(to.shape))), -2.0)
    angle = to.emit("mul", to.uniform(to.shape), 2 * pi)
    normal = to.emit("mul", to.emit("sqrt", radius), to.emit("cos", angle))
    return normal if to.dtype is DType.F32 else to.cast(normal, to.dtype)
