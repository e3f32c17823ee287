"""Pooling of the vocabulary against PyTorch's: ties, NaN, infinities, borders."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows

from pockengine.ir.windows import (
    adaptive,
    avg_pool2d,
    avg_pool2d_input_grad,
    max_pool2d,
    max_pool2d_index,
    max_pool2d_input_grad,
    taps,
)


def _image() -> torch.Tensor:
    """Many equal elements, some NaN, some infinities."""
    x = torch.randint(0, 3, (2, 3, 9, 8)).float()
    x[0, 0, 4, 4] = x[0, 0, 5, 5] = x[1, 2, 0, 0] = torch.nan
    x[0, 1] = -torch.inf
    x[1, 1, 2, 3] = torch.inf
    return x


@pytest.mark.parametrize("kind", ["regular", "adaptive"])
def test_maximum_and_its_gradient(kind: str) -> None:
    """The same values, and every gradient at the same element."""
    x = _image().requires_grad_()
    if kind == "regular":
        y = F.max_pool2d(x, 3, 2, padding=1, ceil_mode=True)
        windows = ((5, 3, 2, 1, 1), (5, 3, 2, 1, 1))
    else:
        y = F.adaptive_max_pool2d(x, (4, 3))
        windows = (adaptive(4), adaptive(3))
    dy = torch.rand(y.shape)
    y.backward(dy)  # type: ignore[no-untyped-call]
    data = x.detach()
    index = max_pool2d_index(data, *windows)
    assert index.dtype == torch.uint8
    torch.testing.assert_close(max_pool2d(data, *windows), y.detach(), equal_nan=True)
    torch.testing.assert_close(max_pool2d_input_grad(dy, index, (9, 8), *windows), x.grad)


def test_many_taps_have_a_wide_index() -> None:
    """A window of more than 256 elements needs more than a byte."""
    assert (
        max_pool2d_index(torch.zeros(1, 1, 17, 16), adaptive(1), adaptive(1)).dtype == torch.int32
    )


def test_average_and_its_gradient() -> None:
    """Padding counts, what ceil_mode reaches beyond it does not."""
    x = torch.randn(2, 3, 9, 8, requires_grad=True)
    y = F.avg_pool2d(x, 3, 2, padding=1, ceil_mode=True)
    dy = torch.rand(y.shape)
    y.backward(dy)  # type: ignore[no-untyped-call]
    windows = ((5, 3, 2, 1, 1), (5, 3, 2, 1, 1))
    torch.testing.assert_close(avg_pool2d(x.detach(), *windows, True, 0), y.detach())
    torch.testing.assert_close(avg_pool2d_input_grad(dy, (9, 8), *windows, True, 0), x.grad)


def test_adaptive_windows_cover_the_axis_both_ways() -> None:
    """The windows that read an element are the adaptive windows of the exchanged sizes."""
    for size, outputs in ((7, 3), (5, 8), (6, 6), (9, 1)):
        reads = [{at for _, at in line} for line in taps(adaptive(outputs), size)]
        back = [{at for _, at in line} for line in taps(adaptive(size), outputs)]
        assert back == [{i for i in range(outputs) if at in reads[i]} for at in range(size)]
