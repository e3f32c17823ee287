"""Depthwise convolution and its gradients equal PyTorch's in float64, for any shape and split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pockengine.lower import depthwise, math, nest
from pockengine.lower.nest import Expr, Stmt
from pockengine.lower.sliding import Depthwise
from pockengine.lower.window import Sweep
from tests.lower.harness import Kernel, built

Floats = NDArray[np.float32]
TOLERANCE = 2e-6  # of the largest value: sums of up to a few thousand float32 products


@dataclass(frozen=True, kw_only=True)
class Case:
    """A layer; pairs are (height, width)."""

    batch: int = 1
    size: tuple[int, int]
    channels: int = 16
    kernel: tuple[int, int] = (3, 3)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    lanes: int = 16
    registers: int = 32

    def shape(self) -> Depthwise:
        """The case for the emitters."""
        rows, columns = (
            Sweep(size=n, kernel=k, stride=s, padding=p, dilation=d,
                  windows=(n + 2 * p - d * (k - 1) - 1) // s + 1)
            for n, k, s, p, d in zip(self.size, self.kernel, self.stride, self.padding,
                                     self.dilation, strict=True)
        )  # fmt: skip
        return Depthwise(
            batch=self.batch,
            channels=self.channels,
            rows=rows,
            columns=columns,
            lanes=self.lanes,
            registers=self.registers,
        )


CASES = {
    "inside and borders": Case(batch=2, size=(20, 21)),
    "narrower last tile": Case(batch=2, size=(8, 8), channels=24),
    "one channel": Case(size=(13, 11), channels=1, kernel=(5, 5), padding=(2, 2)),
    "seven channels, strides 2 and 1": Case(size=(7, 9), channels=7, stride=(2, 1)),
    "stride 2": Case(size=(16, 24), channels=32, stride=(2, 2)),
    "stride 2 without padding": Case(size=(9, 10), stride=(2, 2), padding=(0, 0)),
    "5x5, stride 2": Case(size=(22, 30), kernel=(5, 5), stride=(2, 2), padding=(2, 2)),
    "7x7": Case(size=(12, 20), channels=20, kernel=(7, 7), padding=(3, 3)),
    "dilated": Case(size=(9, 10), padding=(2, 2), dilation=(2, 2)),
    "all sides differ": Case(size=(10, 9), channels=18, kernel=(3, 2), stride=(3, 2),
                             padding=(1, 0), dilation=(2, 3)),
    "one row": Case(size=(1, 40), kernel=(1, 4), padding=(0, 3)),
    "one column": Case(size=(40, 1), kernel=(4, 1), padding=(3, 0)),
    "global": Case(size=(7, 7), kernel=(7, 7), padding=(0, 0)),
    "window above the input": Case(size=(9, 9), kernel=(13, 13), stride=(2, 1), padding=(6, 6)),
    "pixels nobody reads": Case(size=(9, 9), kernel=(1, 1), stride=(3, 3), padding=(0, 0)),
    "taps all in the padding": Case(size=(5, 5), padding=(4, 4), dilation=(4, 4)),
    "scalar": Case(size=(6, 7), channels=3, lanes=1),
    "narrow vectors, few registers": Case(size=(14, 14), channels=12, lanes=8, registers=16),
}  # fmt: skip


class Layer:
    """Operands of a case, what PyTorch makes of them, and readers and writers for the emitters."""

    def __init__(self, case: Case) -> None:
        self.case, self.shape = case, case.shape()
        random = np.random.default_rng(0)
        outputs = (self.shape.rows.windows, self.shape.columns.windows)
        shapes = {
            "x": (case.batch, *case.size, case.channels),
            "w": (*case.kernel, case.channels),
            "y": (case.batch, *outputs, case.channels),
        }
        self.arrays = {k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()}
        self.buffers = {k: nest.operand(k, a.size) for k, a in self.arrays.items()}

    def reference(self) -> dict[str, NDArray[np.float64]]:
        """Output, input gradient and weight gradient in float64."""
        case = self.case
        x, w, y = (torch.from_numpy(self.arrays[k]).double() for k in "xwy")
        x = x.permute(0, 3, 1, 2).requires_grad_()
        w = w.permute(2, 0, 1)[:, None].requires_grad_()
        out = torch.conv2d(x, w, None, case.stride, case.padding, case.dilation, case.channels)
        dx, dw = torch.autograd.grad(out, (x, w), y.permute(0, 3, 1, 2))
        pixels = {"y": out.detach().permute(0, 2, 3, 1), "x": dx.permute(0, 2, 3, 1)}
        return {k: v.numpy() for k, v in (pixels | {"w": dw[:, 0].permute(1, 2, 0)}).items()}

    def read(self, name: str) -> Callable[..., Expr]:
        """``(indices..., lanes)`` -> the elements there."""
        return lambda *at: nest.load(self.buffers[name], self._offset(name, at[:-1]), at[-1])

    def write(self, name: str) -> Callable[..., Stmt]:
        """``(indices..., lanes, value)`` -> their store."""
        return lambda *at: nest.store(
            self.buffers[name], self._offset(name, at[:-2]), at[-1], at[-2]
        )

    def _offset(self, name: str, indices: tuple[Expr, ...]) -> Expr:
        offset: Expr = nest.const(0)
        for index, extent in zip(indices, self.arrays[name].shape, strict=True):
            offset = offset * extent + index
        return offset

    def kernel(self, kind: str, folder: Path) -> tuple[str, Kernel, int]:
        """What the kernel writes, the kernel, its extent."""
        shape, read, write = self.shape, self.read, self.write
        out, emit, extent = {
            "forward": (
                "y",
                lambda b, e: depthwise.forward(shape, read("x"), read("w"), write("y"), b, e),
                shape.forward_extent,
            ),
            "input": (
                "x",
                lambda b, e: depthwise.input_gradient(
                    shape, read("y"), read("w"), write("x"), b, e
                ),
                shape.input_gradient_extent,
            ),
            "weight": (
                "w",
                lambda b, e: depthwise.weight_gradient(
                    shape, read("x"), read("y"), write("w"), b, e
                ),
                shape.weight_gradient_extent,
            ),
        }[kind]
        return out, built(nest.kernel([self.buffers[k] for k in "xwy"], emit), folder), extent

    def run(self, out: str, kernel: Kernel, splits: list[int]) -> Floats:
        """What the kernel writes when its range is split; it starts as NaN."""
        arrays = dict(self.arrays)
        arrays[out] = np.full_like(arrays[out], np.nan)
        for begin, end in pairwise(splits):
            kernel(begin, end, *(arrays[k] for k in "xwy"))
        return arrays[out]


@pytest.mark.parametrize("kind", ["forward", "input", "weight"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_pytorch_for_any_split(case: Case, kind: str, tmp_path: Path) -> None:
    """Every element is written, equals float64, and has the same bits whatever the split."""
    layer = Layer(case)
    out, kernel, extent = layer.kernel(kind, tmp_path)
    whole = layer.run(out, kernel, [0, extent])
    expected = layer.reference()[out]
    error = np.abs(whole - expected).max()
    assert error <= TOLERANCE * max(1.0, np.abs(expected).max())
    split = layer.run(out, kernel, [0, extent // 3, extent // 2, extent])
    np.testing.assert_array_equal(split, whole)


def test_callbacks_fuse_work_around_the_convolution(tmp_path: Path) -> None:
    """A prologue on the input, scaled weights and an epilogue run inside the kernel."""
    layer = Layer(Case(size=(9, 9), channels=20))
    read, write = layer.read, layer.write

    def emit(begin: Expr, end: Expr) -> Stmt:
        return depthwise.forward(
            layer.shape,
            lambda *at: math.sigmoid(read("x")(*at)),
            lambda *at: read("w")(*at) * 2.0,
            lambda *at: write("y")(*at[:-1], math.relu(at[-1])),
            begin,
            end,
        )

    kernel = built(nest.kernel([layer.buffers[k] for k in "xwy"], emit), tmp_path)
    got = layer.run("y", kernel, [0, layer.shape.forward_extent])
    layer.arrays["x"] = (1.0 / (1.0 + np.exp(-layer.arrays["x"]))).astype(np.float32)
    layer.arrays["w"] = layer.arrays["w"] * 2.0
    expected = np.maximum(layer.reference()["y"], 0.0)
    assert np.abs(got - expected).max() <= TOLERANCE * np.abs(expected).max()
