"""ATen pooling: one spatial axis becomes two, an image without a batch gets one."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch.fx import Node

from pockengine.frontend.rules.reduce import mean
from pockengine.frontend.rules.table import Legalizer, Value, rule
from pockengine.ir.graph import type_of
from pockengine.ir.types import DType
from pockengine.ir.windows import Window, adaptive, width


def _images(to: Legalizer, x: Node) -> Node:
    """(..., H, W) as (N, C, H, W)."""
    shape = type_of(x).shape
    return x if len(shape) == 4 else to.reshape(x, (1, prod(shape[:-2]), *shape[-2:]))


def _pair(values: Sequence[int], default: Sequence[int] = ()) -> tuple[int, int]:
    listed = list(values) or list(default)
    return listed[0], listed[-1]


def _windows(
    outputs: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] = (1,),
) -> tuple[Window, Window]:
    sizes, steps = _pair(kernel), _pair(stride, kernel)
    ahead, apart = _pair(padding), _pair(dilation)
    rows, columns = (
        (outputs[axis], sizes[axis], steps[axis], ahead[axis], apart[axis]) for axis in range(2)
    )
    return rows, columns


# --- maxima ---------------------------------------------------------------------------------------


@rule("max_pool2d_with_indices.default")
def _max_pool(
    to: Legalizer,
    x: Node,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> Value:
    del ceil_mode  # the result's shape says it
    return _largest(to, x, _windows(to.shape[-2:], kernel, stride, padding, dilation))


@rule("adaptive_max_pool2d.default")
def _adaptive_max_pool(to: Legalizer, x: Node, size: Value) -> Value:
    del size
    return _largest(to, x, (adaptive(to.shape[-2]), adaptive(to.shape[-1])))


def _largest(to: Legalizer, x: Node, windows: tuple[Window, Window]) -> Value:
    images = _images(to, x)
    best = to.emit("max_pool2d", images, *windows)
    tap = to.emit("max_pool2d_index", images, *windows)
    return to.reshape(best, to.shape), to.reshape(_places(to, tap, images, windows), to.shape)


def _places(to: Legalizer, tap: Node, x: Node, windows: tuple[Window, Window]) -> Node:
    """PyTorch's index of each maximum, its place in the image; removed where nobody reads it."""
    extents = type_of(x).shape[2:]
    across = width(windows[1], extents[1])
    number = to.cast(tap, DType.I64)
    row = to.emit("quotient", number, across)
    column = to.emit("sub", number, to.emit("mul", row, across))
    down, along = (
        _element(to, part, 2 + axis, windows[axis], extents[axis])
        for axis, part in enumerate((row, column))
    )
    return to.emit("add", to.emit("mul", down, extents[1]), along)


def _element(to: Legalizer, tap: Node, axis: int, window: Window, extent: int) -> Node:
    """The element that a tap of each output reads along an axis."""
    outputs, kernel, stride, padding, dilation = window
    position = to.emit("iota", type_of(tap).shape, axis)
    if kernel == 0:
        start = to.emit("quotient", to.emit("mul", position, extent), outputs)
        return to.emit("add", start, tap)
    start = to.emit("sub", to.emit("mul", position, stride), padding)
    return to.emit("add", start, to.emit("mul", tap, dilation))


@rule("max_pool2d_with_indices_backward.default")
def _max_pool_backward(  # noqa: PLR0913, PLR0917 - ATen's arguments
    to: Legalizer,
    grad: Node,
    x: Node,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Node,
) -> Value:
    del ceil_mode, indices
    windows = _windows(type_of(grad).shape[-2:], kernel, stride, padding, dilation)
    return _winners(to, grad, x, windows)


@rule("adaptive_max_pool2d_backward.default")
def _adaptive_max_pool_backward(to: Legalizer, grad: Node, x: Node, indices: Node) -> Value:
    del indices
    outputs = type_of(grad).shape[-2:]
    return _winners(to, grad, x, (adaptive(outputs[0]), adaptive(outputs[1])))


def _winners(to: Legalizer, grad: Node, x: Node, windows: tuple[Window, Window]) -> Value:
    tap = to.emit("max_pool2d_index", _images(to, x), *windows)
    size = type_of(x).shape[-2:]
    dx = to.emit("max_pool2d_input_grad", _images(to, grad), tap, size, *windows)
    return to.reshape(dx, type_of(x).shape)


# --- averages -------------------------------------------------------------------------------------


@rule("avg_pool2d.default")
def _avg_pool(
    to: Legalizer,
    x: Node,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Value:
    del ceil_mode
    windows = _windows(to.shape[-2:], kernel, stride, padding)
    y = to.emit("avg_pool2d", _images(to, x), *windows, count_padding, divisor or 0)
    return to.reshape(y, to.shape)


@rule("avg_pool2d_backward.default")
def _avg_pool_backward(  # noqa: PLR0913, PLR0917 - ATen's arguments
    to: Legalizer,
    grad: Node,
    x: Node,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_padding: bool,
    divisor: int | None,
) -> Value:
    del ceil_mode
    windows = _windows(type_of(grad).shape[-2:], kernel, stride, padding)
    return _averaged(to, grad, x, windows, padded=count_padding, divisor=divisor or 0)


def _averaged(
    to: Legalizer,
    grad: Node,
    x: Node,
    windows: tuple[Window, Window],
    *,
    padded: bool,
    divisor: int,
) -> Value:
    size = type_of(x).shape[-2:]
    images = _images(to, grad)
    dx = to.emit("avg_pool2d_input_grad", images, size, *windows, padded, divisor)
    return to.reshape(dx, type_of(x).shape)


@rule("_adaptive_avg_pool2d.default", "adaptive_avg_pool2d.default")
def _adaptive_avg_pool(to: Legalizer, x: Node, size: Value) -> Value:
    del size
    rank = len(type_of(x).shape)
    rows, columns = to.shape[-2:]
    if (rows, columns) == (1, 1):
        return mean(to, x, (rank - 2, rank - 1), keep=True)
    images = _images(to, x)
    for windows in _passes(type_of(x).shape[-2:], (rows, columns)):
        images = to.emit("avg_pool2d", images, *windows, False, 0)
    return to.reshape(images, to.shape)


def _passes(size: tuple[int, ...], outputs: tuple[int, ...]) -> list[tuple[Window, Window]]:
    """Adaptive windows; where those of both axes vary in size, one axis after the other.

    The code of a kernel grows with the product of the different windows along its axes.
    """
    windows = (adaptive(outputs[0]), adaptive(outputs[1]))
    if any(extent % count == 0 for extent, count in zip(size, outputs, strict=True)):
        return [windows]
    return [(windows[0], (size[1], 1, 1, 0, 1)), ((outputs[0], 1, 1, 0, 1), windows[1])]


@rule("_adaptive_avg_pool2d_backward.default")
def _adaptive_avg_pool_backward(to: Legalizer, grad: Node, x: Node) -> Value:
    shape, (rows, columns) = type_of(x).shape, type_of(grad).shape[-2:]
    if (rows, columns) == (1, 1):
        area = shape[-2] * shape[-1]
        return to.expand(to.emit("mul", grad, 1.0 / area if area else float("nan")), shape)
    images = _images(to, grad)
    sizes = [shape[-2:], (rows, shape[-1])]
    for windows, size in reversed(
        list(zip(_passes(sizes[0], (rows, columns)), sizes, strict=False))
    ):
        images = to.emit("avg_pool2d_input_grad", images, size, *windows, False, 0)
    return to.reshape(images, shape)


# --- three axes: the average over planes, then over their rows and columns ------------------------


def _three(values: Sequence[int], default: Sequence[int] = ()) -> tuple[int, int, int]:
    listed = list(values) or list(default)
    a, b, c = listed * 3 if len(listed) == 1 else listed
    return a, b, c


class _Volume:
    """An average over (D, H, W) as one over D and one over (H, W)."""

    def __init__(self, shape: tuple[int, ...], outputs: tuple[int, ...], *windows: Value) -> None:
        kernel, stride, padding = windows
        sizes, steps, ahead = _three(kernel), _three(stride, kernel), _three(padding)
        self.lead, self.shape, self.outputs = shape[:-3], shape[-3:], outputs[-3:]
        self.windows = [(self.outputs[a], sizes[a], steps[a], ahead[a], 1) for a in range(3)]
        self.flat = self.shape[1] * self.shape[2]
        self.beside = (self.flat, 1, 1, 0, 1)  # one window a pixel of a plane

    def planes(self, depth: int) -> tuple[int, ...]:
        """The shape in which planes are neighbouring rows."""
        return (1, prod(self.lead), depth, self.flat)

    def images(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which each plane is an image."""
        return (prod(self.lead), self.outputs[0], *size)


@rule("avg_pool3d.default")
def _avg_pool3d(
    to: Legalizer,
    x: Node,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_padding: bool = True,
    divisor: int | None = None,
) -> Value:
    del ceil_mode
    form = _Volume(type_of(x).shape, to.shape, kernel, stride, padding)
    rows = to.reshape(x, form.planes(form.shape[0]))
    y = to.emit("avg_pool2d", rows, form.windows[0], form.beside, count_padding, divisor or 0)
    y = to.reshape(y, form.images(form.shape[1:]))
    y = to.emit("avg_pool2d", y, *form.windows[1:], count_padding, int(divisor is not None))
    return to.reshape(y, to.shape)


@rule("avg_pool3d_backward.default")
def _avg_pool3d_backward(  # noqa: PLR0913, PLR0917 - ATen's arguments
    to: Legalizer,
    grad: Node,
    x: Node,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_padding: bool,
    divisor: int | None,
) -> Value:
    del ceil_mode
    form = _Volume(type_of(x).shape, type_of(grad).shape, kernel, stride, padding)
    dy = to.reshape(grad, form.images(form.outputs[1:]))
    once = int(divisor is not None)
    size = form.shape[1:]
    dy = to.emit("avg_pool2d_input_grad", dy, size, *form.windows[1:], count_padding, once)
    dy = to.reshape(dy, form.planes(form.outputs[0]))
    size = (form.shape[0], form.flat)
    windows = (form.windows[0], form.beside)
    dx = to.emit("avg_pool2d_input_grad", dy, size, *windows, count_padding, divisor or 0)
    return to.reshape(dx, type_of(x).shape)
