"""What cannot be captured is refused with one message: where, what was found, what to do."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pockengine as pe
from pockengine.errors import CaptureError
from pockengine.frontend.capture import capture
from pockengine.frontend.check_model import check_model

BATCH = (torch.randn(2, 3), torch.randn(2, 3))


class Module(nn.Module):
    """A linear layer ahead of what each test writes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)


class Item(Module):
    """A number taken out of a tensor."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> (N, 3)."""
        return self.first(x) * x.sum().item()  # type: ignore[no-any-return]


class Unsized(Module):
    """A shape that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> as many as are positive."""
        return self.first(x)[x > 0]  # type: ignore[no-any-return]


class Double(torch.autograd.Function):
    """A function without a formula for its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        """Twice x."""
        del ctx
        return x * 2


class NoFormula(Module):
    """Uses it."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> (N, 3)."""
        return Double.apply(self.first(x))  # type: ignore[no-any-return, no-untyped-call]


class Outside(Module):
    """Leaves PyTorch on the way."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> (N, 3)."""
        return self.first(x) + torch.from_numpy(np.sin(x.numpy()))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Item(), r"test_capture_errors.py, line \d+: return self.first.*number is taken out"),
        (
            Unsized(),
            r"test_capture_errors.py, line \d+: return self.first.*shape depends on values",
        ),
        (NoFormula(), "autograd.Function without a backward.*static `backward`"),
        (Outside(), r"test_capture_errors.py, line \d+.*outside of PyTorch"),
    ],
)
def test_what_cannot_be_traced(model: nn.Module, message: str) -> None:
    """Each cause has its message, with the user's line."""
    with pytest.raises(CaptureError, match=message):
        capture(model, BATCH, lambda output, target: (output.sum() - target.sum()) ** 2)


class Square(torch.autograd.Function):
    """A function with a formula of its own, which is not the true gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        """The square."""
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        """Seven times what comes in."""
        (x,) = ctx.saved_tensors
        return grad * x * 7


def test_a_function_with_a_formula() -> None:
    """An autograd.Function is differentiated by its own formula."""

    class Uses(Module):
        def forward(self, x: Tensor) -> Tensor:
            return Square.apply(self.first(x))  # type: ignore[no-any-return, no-untyped-call]

    torch.manual_seed(0)
    model = Uses()
    trainer = pe.compile(model, BATCH, loss="mse", optimizer=pe.SGD())
    trainer.step(*BATCH, lr=0.1)
    nn.functional.mse_loss(model(BATCH[0]), BATCH[1]).backward()  # type: ignore[no-untyped-call]
    assert model.first.weight.grad is not None
    wanted = model.first.weight.detach() - 0.1 * model.first.weight.grad
    torch.testing.assert_close(trainer.state_dict()["first.weight"], wanted)


class Complex(nn.Module):
    """Rolls the phase of a spectrum, in a module of its own."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> (N, 2), by ops that nobody lowers."""
        return torch.fft.rfft(torch.special.i0(x), dim=-1).abs()


def test_all_unsupported_ops_at_once() -> None:
    """Each op is listed once, with its module and line; a gradient names its forward's line."""
    with pytest.raises(CaptureError) as caught:
        capture(nn.Sequential(nn.Linear(3, 3), Complex()), (BATCH[0], torch.randn(2, 2)), "mse")
    message = str(caught.value)
    for op in ("i0.default", "special_i1.default", "_fft_r2c.default"):
        assert f"{op} (1, test_capture_errors.py, line" in message or f"{op} of" in message
    assert message.count("special_i1.default") == 1


def test_quantized_module() -> None:
    """A quantized module is named."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, of quantization altogether
        quantized = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(CaptureError, match=r"quantized modules: 0 \(Linear\)"):
        check_model(quantized, BATCH)


@pytest.mark.parametrize(
    ("model", "batch", "message"),
    [
        (nn.Linear(3, 3).double(), BATCH, r"weight of float64.*needed|model\.float\(\)"),
        (nn.Linear(3, 3).half(), BATCH, r"weight of float16, bias of float16; float32"),
        (nn.Linear(3, 3, dtype=torch.complex64), BATCH, r"weight of complex64.*real and imag"),
        (nn.Linear(3, 3, device="meta"), BATCH, r"weight on meta.*weights="),
        (nn.Linear(3, 3), (BATCH[0].double(), BATCH[1]), r"example_batch.*leaf 0 of float64"),
        (nn.Linear(3, 3), (BATCH[0].to("meta"), BATCH[1]), r"example_batch.*leaf 0 on meta"),
    ],
)
def test_dtypes_and_devices(model: nn.Module, batch: Any, message: str) -> None:
    """What compile cannot train is refused ahead of capture, by the tensor's name."""
    with pytest.raises(CaptureError, match=message):
        pe.compile(model, batch, loss="mse", optimizer=pe.SGD())
