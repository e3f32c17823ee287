"""Pooling and its gradients equal PyTorch's, with its rules for ties, NaN and padding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name the field uses

from pockengine.lower import nest, pooling
from pockengine.lower.nest import Expr, Stmt
from pockengine.lower.sliding import Pool
from pockengine.lower.window import Sweep
from tests.lower.harness import built

Emit = Callable[[Expr, Expr], Stmt]
Array = np.ndarray[Any, Any]
TOLERANCE = 5e-6  # sums of up to 25 float32 values near one


@dataclass(frozen=True, kw_only=True)
class Case:
    """A pooling layer; pairs are (height, width)."""

    batch: int = 1
    size: tuple[int, int]
    channels: int = 16
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    ceil_mode: bool = False
    count_padding: bool = True
    divisor: int | None = None

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments both PyTorch poolings share."""
        return {
            "kernel_size": self.kernel,
            "stride": self.stride,
            "padding": self.padding,
            "ceil_mode": self.ceil_mode,
        }


CASES = (
    Case(batch=2, size=(9, 9), channels=24, kernel=(3, 3), stride=(2, 2), padding=(1, 1)),
    Case(size=(10, 11), channels=7, kernel=(3, 2), stride=(2, 3), padding=(1, 0), ceil_mode=True,
         count_padding=False),
    Case(size=(10, 11), kernel=(3, 3), stride=(2, 2), padding=(1, 1), ceil_mode=True),
    Case(size=(12, 22), kernel=(5, 5), stride=(1, 1), padding=(2, 2), count_padding=False),
    Case(size=(8, 8), kernel=(2, 2), stride=(2, 2), divisor=3),
    Case(size=(7, 7), channels=20, kernel=(7, 7), stride=(7, 7)),
)  # fmt: skip


class Layer:
    """A case's input x, gradient dy and index i, and the kernels over them."""

    def __init__(self, case: Case, x: torch.Tensor | None = None) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (case.batch, case.channels, *case.size)
        self.case = case
        self.x = torch.randn(shape, generator=generator) if x is None else x
        self.out, self.index = F.max_pool2d(self.x, **case.keywords, return_indices=True)
        self.dy = torch.randn(self.out.shape, generator=generator)
        self.arrays = {"x": _nhwc(self.x), "y": _nhwc(self.dy), "i": np.zeros(1, np.int32)}
        self.arrays["i"] = np.zeros(self.arrays["y"].shape, np.int32)
        self.buffers = {k: nest.operand(k, a.size, str(a.dtype)) for k, a in self.arrays.items()}
        rows, columns = (
            Sweep(size=n, kernel=k, stride=s, padding=p, windows=windows)
            for n, k, s, p, windows in zip(
                case.size, case.kernel, case.stride, case.padding, self.out.shape[2:], strict=True
            )
        )
        self.pool = Pool(
            batch=case.batch, channels=case.channels, rows=rows, columns=columns, lanes=16
        )

    def read(self, name: str) -> Callable[..., Expr]:
        """``(n, h, w, c0, lanes)`` -> the elements there."""
        return lambda *at: nest.load(self.buffers[name], self._offset(name, at[:4]), at[4])

    def write(self, name: str) -> Callable[..., Stmt]:
        """``(n, h, w, c0, lanes, value)`` -> their store."""
        return lambda *at: nest.store(self.buffers[name], self._offset(name, at[:4]), at[5], at[4])

    def _offset(self, name: str, place: tuple[Expr, ...]) -> Expr:
        _, height, width, channels = self.arrays[name].shape
        n, h, w, c = place
        return ((n * height + h) * width + w) * channels + c

    def run(self, out: str, emit: Emit, extent: int, folder: Path) -> Array:
        """What a kernel, its range split in two, writes into an operand that was NaN."""
        kernel = built(nest.kernel([self.buffers[k] for k in "xyi"], emit), folder)
        arrays = self.arrays | {out: np.full_like(self.arrays[out], np.nan)}
        for begin, end in ((0, extent // 2), (extent // 2, extent)):
            kernel(begin, end, *(arrays[k] for k in "xyi"))
        return arrays[out]

    def max_pool(self, folder: Path) -> Array:
        """The forward kernel's values; it leaves the index in ``arrays``."""

        def store(*at: Expr) -> Stmt:
            return nest.block(self.write("y")(*at[:6]), self.write("i")(*at[:5], at[6]))

        emit: Emit = lambda b, e: pooling.max_pool(self.pool, self.read("x"), store, b, e)  # noqa: E731
        return self.run("y", emit, self.pool.forward_extent, folder)

    def winners(self) -> Array:
        """The index as PyTorch counts it, in the input's plane."""
        height, width = self.out.shape[2:]
        r, s = np.divmod(self.arrays["i"].astype(np.int64), self.case.kernel[1])
        top = np.arange(height) * self.case.stride[0] - self.case.padding[0]
        left = np.arange(width) * self.case.stride[1] - self.case.padding[1]
        return (r + top[:, None, None]) * self.case.size[1] + s + left[:, None]


def _nhwc(x: torch.Tensor) -> Array:
    return np.ascontiguousarray(x.detach().permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("case", CASES)
def test_max_pool_and_its_gradient(case: Case, tmp_path: Path) -> None:
    """Values and winners are PyTorch's; the gradient goes to the winners."""
    layer = Layer(case)
    np.testing.assert_array_equal(layer.max_pool(tmp_path), _nhwc(layer.out))
    np.testing.assert_array_equal(layer.winners(), _nhwc(layer.index))
    emit: Emit = lambda b, e: pooling.max_pool_gradient(  # noqa: E731
        layer.pool, layer.read("y"), layer.read("i"), layer.write("x"), b, e
    )
    got = layer.run("x", emit, layer.pool.gradient_extent, tmp_path)
    x = layer.x.clone().requires_grad_()
    out = F.max_pool2d(x, **case.keywords)
    np.testing.assert_allclose(
        got, _nhwc(torch.autograd.grad(out, x, layer.dy)[0]), rtol=0, atol=TOLERANCE
    )


def test_max_pool_of_ties_nan_and_infinities(tmp_path: Path) -> None:
    """The first of equals wins, the last NaN wins, and minus infinity is a value like others."""
    case = Case(size=(9, 9), kernel=(3, 3), stride=(2, 2), padding=(1, 1))
    values = torch.tensor([0.0, 1.0, 1.0, float("nan"), float("-inf"), float("-inf")])
    pick = torch.randint(0, 6, (1, 16, 9, 9), generator=torch.Generator().manual_seed(1))
    x = values[pick]
    x[0, 0] = float("-inf")
    layer = Layer(case, x)
    np.testing.assert_array_equal(layer.max_pool(tmp_path), _nhwc(layer.out))
    np.testing.assert_array_equal(layer.winners(), _nhwc(layer.index))


@pytest.mark.parametrize("case", CASES)
def test_average_pool_and_its_gradient(case: Case, tmp_path: Path) -> None:
    """Sums are divided by what PyTorch divides by, at borders and beyond them too."""
    layer = Layer(case)
    options: dict[str, Any] = {"count_padding": case.count_padding, "divisor": case.divisor}
    forward: Emit = lambda b, e: pooling.average_pool(  # noqa: E731
        layer.pool, layer.read("x"), layer.write("y"), b, e, **options
    )
    backward: Emit = lambda b, e: pooling.average_pool_gradient(  # noqa: E731
        layer.pool, layer.read("y"), layer.write("x"), b, e, **options
    )
    x = layer.x.clone().requires_grad_()
    out = F.avg_pool2d(
        x,
        **case.keywords,
        count_include_pad=case.count_padding,
        divisor_override=case.divisor,
    )
    expected = _nhwc(torch.autograd.grad(out, x, layer.dy)[0])
    got = layer.run("y", forward, layer.pool.forward_extent, tmp_path)
    np.testing.assert_allclose(got, _nhwc(out), rtol=0, atol=TOLERANCE)
    got = layer.run("x", backward, layer.pool.gradient_extent, tmp_path)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
