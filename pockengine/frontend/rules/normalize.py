"""ATen batch normalization and global pooling."""

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
    running_mean: Node,
    running_var: Node,
    training: bool,
    momentum: float,
    eps: float,
) -> Value:
    if training:
        raise NotImplementedError("batch normalization in train mode; call model.eval() first")
    return _batch_norm_eval(to, x, weight, bias, running_mean, running_var, momentum, eps)


@rule("native_batch_norm_backward.default")
def _batch_norm_backward(  # noqa: PLR0913, PLR0917 - ATen's arguments
    to: Legalizer,
    grad: Node,
    x: Node,
    weight: Node | None,
    running_mean: Node,
    running_var: Node,
    save_mean: Value,
    save_invstd: Value,
    train: bool,
    eps: float,
    mask: Value,
) -> Value:
    del save_mean, save_invstd, mask
    if train:
        raise NotImplementedError("batch normalization in train mode; call model.eval() first")
    shape = type_of(x).shape
    gamma = to.emit("full", shape[1:2], 1.0, "f32") if weight is None else weight
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    return (
        to.emit("batch_norm_input_grad", grad, gamma, running_var, float(eps)),
        to.emit("batch_norm_weight_grad", grad, x, running_mean, running_var, float(eps)),
        to.emit("sum", grad, axes),
    )


def _windows(to: Legalizer, shape: tuple[int, ...], size: tuple[int, ...]) -> tuple[int, ...]:
    del to
    (height, width), (rows, columns) = shape[-2:], size
    if height % rows or width % columns:
        raise NotImplementedError(f"adaptive pooling of {height}x{width} to {rows}x{columns}")
    return (*shape[:-2], rows, height // rows, columns, width // columns)


@rule("_adaptive_avg_pool2d.default", "adaptive_avg_pool2d.default")
def _adaptive_avg_pool(to: Legalizer, x: Node, size: Value) -> Value:
    del size
    shape = type_of(x).shape
    rank = len(shape)
    if to.shape[-2:] == (1, 1):
        return mean(to, x, (rank - 2, rank - 1), keep=True)
    tiled = to.reshape(x, _windows(to, shape, to.shape[-2:]))
    return mean(to, tiled, (rank - 1, rank + 1), keep=False)


@rule("_adaptive_avg_pool2d_backward.default")
def _adaptive_avg_pool_backward(to: Legalizer, grad: Node, x: Node) -> Value:
    shape, pooled = type_of(x).shape, type_of(grad).shape
    tiles = _windows(to, shape, pooled[-2:])
    area = tiles[-3] * tiles[-1]
    thin = (*pooled[:-1], 1, pooled[-1], 1)
    spread = to.expand(to.reshape(to.emit("mul", grad, 1.0 / area), thin), tiles)
    return to.reshape(spread, shape)
