"""Pooling of the vocabulary: windows along two axes, regular or adaptive, borders exact.

A ``Window`` says which elements of an axis each output reads. Padding is never read: a window has
fewer taps at a border. A tap's index is its place in the window, (row, column) in row-major order.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TypeAlias

import torch
from torch import Tensor

from pockengine.ir.ops import Kind, Pair, _op

Window: TypeAlias = tuple[int, int, int, int, int]
"""(outputs, kernel, stride, padding, dilation); kernel 0: adaptive, from the extent alone."""


def adaptive(outputs: int) -> Window:
    """Windows [floor(i extent / outputs), ceil((i + 1) extent / outputs))."""
    return (outputs, 0, 0, 0, 0)


def taps(window: Window, extent: int) -> list[list[tuple[int, int]]]:
    """(tap, element) of all that each output reads along an axis."""
    outputs, kernel, stride, padding, dilation = window
    if kernel == 0:
        starts = [i * extent // outputs for i in range(outputs)]
        ends = [-(-(i + 1) * extent // outputs) for i in range(outputs)]
        return [list(enumerate(range(a, b))) for a, b in zip(starts, ends, strict=True)]
    places = [
        [(k, i * stride - padding + k * dilation) for k in range(kernel)] for i in range(outputs)
    ]
    return [[(k, at) for k, at in line if 0 <= at < extent] for line in places]


def width(window: Window, extent: int) -> int:
    """Most taps of a window."""
    return window[1] or max((len(line) for line in taps(window, extent)), default=0)


def _sweep(window: Window, extent: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """For each tap: the element that every output reads by it (0 if none), and whether it does."""
    lines = [dict(line) for line in taps(window, extent)]
    for tap in range(width(window, extent)):
        places = [line.get(tap, -1) for line in lines]
        at = torch.tensor(places, dtype=torch.int64, device="cpu").to(device)
        yield at.clamp(min=0), at >= 0


def _taps(
    size: tuple[int, ...], rows: Window, columns: Window, device: torch.device
) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """(index, row elements, column elements, validity (rows, columns)) of each tap in order."""
    across = list(_sweep(columns, size[-1], device))
    for r, (row, row_valid) in enumerate(_sweep(rows, size[-2], device)):
        for s, (column, column_valid) in enumerate(across):
            valid = row_valid[:, None] & column_valid[None, :]
            yield r * len(across) + s, row, column, valid


def _largest(x: Tensor, rows: Window, columns: Window) -> tuple[Tensor, Tensor]:
    shape = (*x.shape[:2], rows[0], columns[0])
    best = torch.full(shape, -torch.inf, dtype=x.dtype, device=x.device)
    index = torch.full(shape, -1, dtype=torch.int64, device=x.device)
    for tap, row, column, valid in _taps(tuple(x.shape), rows, columns, x.device):
        value = x[:, :, row[:, None], column[None, :]]
        wins = valid & ((value > best) | value.isnan() | (index < 0))
        best, index = torch.where(wins, value, best), torch.where(wins, tap, index)
    return best, index.clamp(min=0)


@_op(Kind.STENCIL)
def max_pool2d(x: Tensor, rows: Window, columns: Window) -> Tensor:
    """The largest of each window of (N, C, H, W); NaN if any is."""
    return _largest(x, rows, columns)[0]


@_op(Kind.STENCIL)
def max_pool2d_index(x: Tensor, rows: Window, columns: Window) -> Tensor:
    """The tap that max_pool2d chose: the first of equals, but the last NaN, as in PyTorch.

    u8 where a window has at most 256 taps, else i32.
    """
    few = width(rows, x.shape[2]) * width(columns, x.shape[3]) <= 256
    return _largest(x, rows, columns)[1].to(torch.uint8 if few else torch.int32)


@_op(Kind.STENCIL)
def max_pool2d_input_grad(
    grad: Tensor, index: Tensor, size: Pair, rows: Window, columns: Window
) -> Tensor:
    """Gradient of max_pool2d by x: each output's goes to the tap that won; (N, C, *size)."""
    found = torch.zeros((*grad.shape[:2], *size), dtype=grad.dtype, device=grad.device)
    for tap, row, column, valid in _taps(size, rows, columns, grad.device):
        part = torch.where(valid & (index == tap), grad, 0.0)
        places = (slice(None), slice(None), row[:, None], column[None, :])
        found = _added(found, places, part)
    return found


def _added(total: Tensor, places: tuple[object, ...], part: Tensor) -> Tensor:
    if total.device.type == "meta":
        return total
    height_width = total.shape[2:]
    number = torch.arange(prod(height_width)).reshape(height_width)[places[2:]]  # type: ignore[index]
    flat = total.flatten(2)
    return flat.index_add(2, number.reshape(-1), part.flatten(2)).reshape(total.shape)


@_op(Kind.STENCIL)
def avg_pool2d(x: Tensor, rows: Window, columns: Window, padded: bool, divisor: int) -> Tensor:
    """The sum of each window of (N, C, H, W) over its number of elements.

    Args:
        x: what is pooled.
        rows: windows over the height.
        columns: windows over the width.
        padded: whether padding counts; what ceil_mode reaches beyond it never does.
        divisor: a number to divide by instead; 0: none.
    """
    total = torch.zeros((*x.shape[:2], rows[0], columns[0]), dtype=x.dtype, device=x.device)
    for _, row, column, valid in _taps(tuple(x.shape), rows, columns, x.device):
        total = total + torch.where(valid, x[:, :, row[:, None], column[None, :]], 0.0)
    return total / _counts(x.shape[2:], rows, columns, padded, divisor).to(total)


@_op(Kind.STENCIL)
def avg_pool2d_input_grad(
    grad: Tensor, size: Pair, rows: Window, columns: Window, padded: bool, divisor: int
) -> Tensor:
    """Gradient of avg_pool2d by x: (N, C, *size)."""
    share = grad / _counts(size, rows, columns, padded, divisor).to(grad)
    found = torch.zeros((*grad.shape[:2], *size), dtype=grad.dtype, device=grad.device)
    for _, row, column, valid in _taps(size, rows, columns, grad.device):
        places = (slice(None), slice(None), row[:, None], column[None, :])
        found = _added(found, places, torch.where(valid, share, 0.0))
    return found


def _counts(
    size: tuple[int, ...], rows: Window, columns: Window, padded: bool, divisor: int
) -> Tensor:
    """What each window's sum is divided by, (outputs, outputs)."""
    lines = [
        torch.tensor(_reach(window, extent, padded=padded), dtype=torch.float32, device="cpu")
        for window, extent in zip((rows, columns), size[-2:], strict=True)
    ]
    area = lines[0][:, None] * lines[1][None, :]
    return torch.full_like(area, divisor) if divisor else area


def _reach(window: Window, extent: int, *, padded: bool) -> list[int]:
    outputs, kernel, stride, padding, _ = window
    if kernel == 0 or not padded:
        return [len(line) for line in taps(window, extent)]
    starts = [i * stride - padding for i in range(outputs)]
    return [min(start + kernel, extent + padding) - start for start in starts]
