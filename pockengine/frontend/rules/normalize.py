"""ATen batch normalization, by running statistics and by those of the batch."""

from __future__ import annotations

from torch.fx import Node

from pockengine.frontend.rules.reduce import mean
from pockengine.frontend.rules.table import Legalizer, Value, rule
from pockengine.ir.graph import type_of


@rule("_native_batch_norm_legit_no_training.default")
def _batch_norm_eval(
    to: Legalizer,
    x: Node,
    weight: Node | None,
    bias: Node | None,
    running_mean: Node,
    running_var: Node,
    momentum: float,
    eps: float,
) -> Value:
    del momentum
    channels = type_of(running_mean).shape
    gamma = to.emit("full", channels, 1.0, "f32") if weight is None else weight
    beta = to.emit("full", channels, 0.0, "f32") if bias is None else bias
    y = to.emit("batch_norm", x, gamma, beta, running_mean, running_var, float(eps))
    return y, None, None


@rule(
    "native_batch_norm.default",
    "_native_batch_norm_legit.default",
    "_native_batch_norm_legit_functional.default",
)
def _batch_norm(  # noqa: PLR0913, PLR0917 - ATen's arguments
    to: Legalizer,
    x: Node,
    weight: Node | None,
    bias: Node | None,
    running_mean: Node | None,
    running_var: Node | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Value:
    if not training:
        made = _batch_norm_eval(to, x, weight, bias, running_mean, running_var, momentum, eps)
        return (*made, running_mean, running_var)
    shape = type_of(x).shape
    axes, count = _others(shape), type_of(x).size // max(shape[1], 1)
    found = mean(to, x, axes, keep=False)
    centred = to.emit("sub", x, _per_channel(to, found, shape))
    var = mean(to, to.emit("mul", centred, centred), axes, keep=False)
    invstd = to.emit("rsqrt", to.emit("add", var, float(eps)))
    scale = invstd if weight is None else to.emit("mul", invstd, weight)
    y = to.emit("mul", centred, _per_channel(to, scale, shape))
    if bias is not None:
        y = to.emit("add", y, _per_channel(to, bias, shape))
    if running_mean is None:
        return y, found, invstd
    unbiased = to.emit("mul", var, count / (count - 1) if count > 1 else float("nan"))
    new = (
        to.emit("add", to.emit("mul", old, 1 - momentum), to.emit("mul", now, momentum))
        for old, now in ((running_mean, found), (running_var, unbiased))
    )
    return (y, found, invstd, *new)


@rule("_native_batch_norm_legit.no_stats")
def _batch_norm_no_stats(
    to: Legalizer,
    x: Node,
    weight: Node | None,
    bias: Node | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Value:
    del training  # there are no other statistics
    return _batch_norm(to, x, weight, bias, None, None, True, momentum, eps)


def _others(shape: tuple[int, ...]) -> tuple[int, ...]:
    """All axes but the channels'."""
    return tuple(axis for axis in range(len(shape)) if axis != 1)


def _per_channel(to: Legalizer, values: Node, shape: tuple[int, ...]) -> Node:
    """(C,) as it broadcasts over (N, C, ...)."""
    return to.reshape(values, tuple(e if axis == 1 else 1 for axis, e in enumerate(shape)))


@rule("native_batch_norm_backward.default")
def _batch_norm_backward(  # noqa: PLR0913, PLR0917 - ATen's arguments
    to: Legalizer,
    grad: Node,
    x: Node,
    weight: Node | None,
    running_mean: Node | None,
    running_var: Node | None,
    save_mean: Node,
    save_invstd: Node,
    train: bool,
    eps: float,
    mask: Value,
) -> Value:
    del mask
    if train:
        return _through_statistics(to, grad, x, weight, save_mean, save_invstd)
    shape = type_of(x).shape
    gamma = to.emit("full", shape[1:2], 1.0, "f32") if weight is None else weight
    axes = _others(shape)
    return (
        to.emit("batch_norm_input_grad", grad, gamma, running_var, float(eps)),
        to.emit("batch_norm_weight_grad", grad, x, running_mean, running_var, float(eps)),
        to.emit("sum", grad, axes),
    )


def _through_statistics(
    to: Legalizer, grad: Node, x: Node, weight: Node | None, center: Node, invstd: Node
) -> Value:
    """Gradients by x, weight and bias of a normalization by the batch's own statistics.

    dx = gamma / sigma * (dy - mean(dy) - xhat * mean(dy * xhat)), Ioffe and Szegedy 2015.
    """
    shape = type_of(x).shape
    axes = _others(shape)
    share = 1.0 / max(type_of(x).size // max(shape[1], 1), 1)
    centred = to.emit("sub", x, _per_channel(to, center, shape))
    db = to.emit("sum", grad, axes)
    dw = to.emit("mul", to.emit("sum", to.emit("mul", grad, centred), axes), invstd)
    slope = to.emit("mul", to.emit("mul", dw, invstd), share)
    rest = to.emit("sub", grad, _per_channel(to, to.emit("mul", db, share), shape))
    rest = to.emit("sub", rest, to.emit("mul", centred, _per_channel(to, slope, shape)))
    scale = invstd if weight is None else to.emit("mul", invstd, weight)
    return to.emit("mul", rest, _per_channel(to, scale, shape)), dw, db
