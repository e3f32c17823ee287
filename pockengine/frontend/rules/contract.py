"""ATen matrix products and convolutions, with their gradients."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer, Value, rule
from pockengine.ir.graph import type_of


@rule("mm.default", "bmm.default")
def _matmul(to: Legalizer, a: Node, b: Node) -> Value:
    return to.emit("matmul", a, b)


@rule("addmm.default", "baddbmm.default")
def _addmm(
    to: Legalizer, bias: Node, a: Node, b: Node, *, beta: float = 1, alpha: float = 1
) -> Value:
    product = to.emit("matmul", a, b)
    if alpha != 1:
        product = to.emit("mul", product, float(alpha))
    if beta == 0:
        return product
    return to.emit("add", product, bias if beta == 1 else to.emit("mul", bias, float(beta)))


@rule("mv.default")
def _mv(to: Legalizer, a: Node, x: Node) -> Value:
    column = to.reshape(x, (type_of(x).shape[0], 1))
    return to.reshape(to.emit("matmul", a, column), to.shape)


class _Convolution:
    """ATen's convolution arguments as the vocabulary's; one spatial axis becomes two."""

    def __init__(
        self,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        rank: int,
    ) -> None:
        if rank not in (3, 4):
            raise NotImplementedError(f"convolution with {rank - 2} spatial axes")
        self.flat = rank == 3
        stride, padding, dilation = (_pair(v, self.flat) for v in (stride, padding, dilation))
        if self.flat:
            stride, dilation, padding = (1, stride[1]), (1, dilation[1]), (0, padding[1])
        edges = (padding[0], padding[0], padding[1], padding[1])
        self.geometry = (tuple(stride), edges, tuple(dilation), groups)

    def widen(self, to: Legalizer, x: Node) -> Node:
        """(N, C, L) -> (N, C, 1, L)."""
        shape = type_of(x).shape
        return to.reshape(x, (*shape[:2], 1, shape[2])) if self.flat else x

    def narrow(self, to: Legalizer, x: Node) -> Node:
        """(N, C, 1, L) -> (N, C, L)."""
        shape = type_of(x).shape
        return to.reshape(x, (*shape[:2], shape[3])) if self.flat else x


def _pair(values: Sequence[int], flat: bool) -> tuple[int, int]:
    full = list(values) * (2 if len(values) == 1 else 1)
    return (1, full[-1]) if flat else (full[0], full[1])


@rule("convolution.default")
def _convolution(  # noqa: PLR0913, PLR0917 - ATen's arguments
    to: Legalizer,
    x: Node,
    weight: Node,
    bias: Node | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    del output_padding  # the output's shape says it
    form = _Convolution(stride, padding, dilation, groups, len(type_of(x).shape))
    wide, kernel = form.widen(to, x), form.widen(to, weight)
    if transposed:
        size = (1, to.shape[2]) if form.flat else to.shape[2:]
        y = to.emit("conv2d_input_grad", wide, kernel, size, *form.geometry)
    else:
        y = to.emit("conv2d", wide, kernel, *form.geometry)
    if bias is not None:
        y = to.emit("add", y, to.reshape(bias, (1, type_of(bias).shape[0], 1, 1)))
    return form.narrow(to, y)


@rule("convolution_backward.default")
def _convolution_backward(  # noqa: PLR0913, PLR0917 - ATen's arguments
    to: Legalizer,
    grad: Node,
    x: Node,
    weight: Node,
    bias_sizes: Value,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    mask: Sequence[bool],
) -> Value:
    del bias_sizes, output_padding
    form = _Convolution(stride, padding, dilation, groups, len(type_of(x).shape))
    dy, wide, kernel = form.widen(to, grad), form.widen(to, x), form.widen(to, weight)
    kernel_size = type_of(kernel).shape[2:]
    dx = dw = db = None
    if mask[0]:
        if transposed:
            dx = to.emit("conv2d", dy, kernel, *form.geometry)
        else:
            size = type_of(wide).shape[2:]
            dx = to.emit("conv2d_input_grad", dy, kernel, size, *form.geometry)
        dx = form.narrow(to, dx)
    if mask[1]:
        pair = (dy, wide) if transposed else (wide, dy)
        dw = to.emit("conv2d_weight_grad", *pair, kernel_size, *form.geometry)
        dw = to.reshape(dw, type_of(weight).shape)
    if mask[2]:
        db = to.emit("sum", dy, (0, 2, 3))
    return dx, dw, db
