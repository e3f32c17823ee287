"""Values along a row and values of one element a row, where both have the same shape."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import pockengine as pe

EXTENTS = (5, 16)


class Gaussian(nn.Module):
    """Squared distances, scaled by a computed vector along the row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(width))
        self.deviation = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width) -> (rows,)."""
        scaled: Tensor = (x - self.mean) / self.deviation.exp()
        return scaled.square().sum(-1)


class RmsNorm(nn.Module):
    """Its scale is one more than its parameter."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        """Of x's shape."""
        root = torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
        return x * root * (1 + self.scale)


class Transitions(nn.Module):
    """A step of a linear-chain conditional random field: square by its nature."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.randn(width, width))
        self.start = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width) -> (rows, width)."""
        return torch.logsumexp((x + self.start)[:, :, None] + self.scores, 1)


class Crossed(nn.Module):
    """What a row sums up to, read along the rows and along the columns."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        """(width, width), of which the rows' sums stand in both directions."""
        sums = (x.sin() * self.weight).logsumexp(-1)
        return torch.tanh(x - sums[:, None]) * sums[None, :].cos()


class Lines(nn.Module):
    """Rows of two leading axes, scaled by a matrix that looks like theirs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width) -> (rows, width, width)."""
        cube = x[:, :, None] * self.weight.tanh()
        return cube.softmax(-1) * self.weight.exp() + cube.mean(-1).mT.unsqueeze(-1)


def _energy(outputs: Tensor, more: Tensor) -> Tensor:
    return outputs.square().sum() + more


@pytest.mark.parametrize("width", EXTENTS)
@pytest.mark.parametrize("kind", [Gaussian, RmsNorm, Transitions, Crossed, Lines])
def test_as_many_rows_as_elements_of_a_row(kind: type[nn.Module], width: int) -> None:
    """Output and gradients equal PyTorch's."""
    torch.manual_seed(0)
    model = kind(width)
    x = torch.randn(width, width)
    eager = copy.deepcopy(model)
    wanted = eager(x)
    _energy(wanted, torch.zeros(())).backward()
    sample = x, torch.zeros(())
    with pe.compile(model, sample, loss=_energy, optimizer=pe.SGD(), threads=1) as trainer:
        torch.testing.assert_close(trainer.predict(x), wanted.detach(), rtol=1e-4, atol=1e-5)
        trainer.step(*sample, lr=1.0)
        state = trainer.state_dict()
    for name, parameter in eager.named_parameters():
        gradient = parameter.detach() - state[name]
        assert parameter.grad is not None
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-5 + 1e-4 * scale)
