"""One trace gives the graph that AOTAutograd gives; what is written goes to AOTAutograd."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

import pockengine as pe
from pockengine.frontend import capture as module
from pockengine.frontend.capture import capture
from pockengine.ir.interpret import interpret
from tests.models import Asserting


class Tied(nn.Module):
    """A weight with two names, a buffer and a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.decode.weight = self.encode.weight
        self.register_buffer("shift", torch.randn(4))
        self.scale = torch.tensor([1.0, 2.0, 3.0, 4.0])

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 4)."""
        hidden = torch.tanh(self.encode(x) + self.shift) * self.scale
        return self.decode(hidden)  # type: ignore[no-any-return]


class Counting(nn.Module):
    """A buffer that the forward pass writes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 4)."""
        self.seen += 1
        return self.layer(x) * self.seen  # type: ignore[no-any-return]


class Averaging(nn.Module):
    """A buffer that the forward pass assigns anew."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4) -> (N, 4)."""
        if self.training:
            self.mean = self.mean * 0.5 + x.mean(0) * 0.5
        return self.layer(x - self.mean)  # type: ignore[no-any-return]


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each capture was a single trace."""
    found: list[bool] = []
    single: Callable[..., Any] = module.single_trace

    def watched(*arguments: Any) -> Any:
        traced = single(*arguments)
        found.append(traced is not None)
        return traced

    monkeypatch.setattr(module, "single_trace", watched)
    return found


def batch() -> tuple[Tensor, Tensor]:
    """Inputs and targets."""
    return torch.randn(3, 4), torch.randn(3, 4)


def test_same_values_as_from_aot_autograd(
    traces: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss, outputs and gradients, of tied weights, buffers and constants."""
    torch.manual_seed(0)
    model, (x, y) = Tied().eval(), batch()
    found = []
    for _ in range(2):
        captured = capture(model, (x, y), "mse")
        values = {**captured.tensors, captured.inputs[0]: x, captured.targets[0]: y}
        found.append(interpret(captured.graph, values))
        monkeypatch.setattr(module, "single_trace", lambda *_: None)
    assert traces == [True]
    mine, theirs = found
    assert mine.gradients.keys() == theirs.gradients.keys()
    torch.testing.assert_close(mine.loss, theirs.loss)
    torch.testing.assert_close(mine.outputs, theirs.outputs)
    torch.testing.assert_close(mine.gradients, theirs.gradients)


def test_a_written_buffer_goes_to_aot_autograd(traces: list[bool]) -> None:
    """Its new value is part of the graph."""
    captured = capture(Counting(), batch(), "mse")
    assert traces[0] is False
    values = {**captured.tensors, captured.inputs[0]: torch.ones(3, 4)}
    result = interpret(captured.graph, {**values, captured.targets[0]: torch.zeros(3, 4)})
    assert any(key.startswith("seen") and value == 1 for key, value in result.updates.items())


def test_a_buffer_assigned_anew_trains_as_in_pytorch() -> None:
    """What becomes of the attribute is what becomes of the buffer, step by step."""
    torch.manual_seed(0)
    model, batches = Averaging(), [batch() for _ in range(3)]
    theirs = copy.deepcopy(model)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    with pe.compile(model, batches[0], loss="mse", optimizer=pe.SGD(), threads=1) as trainer:
        for x, y in batches:
            optimizer.zero_grad()
            loss = F.mse_loss(theirs(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            assert trainer.step(x, y, lr=0.1) == pytest.approx(loss.item(), rel=1e-5)
        torch.testing.assert_close(trainer.state_dict()["mean"], theirs.mean)
    assert torch.equal(model.mean, torch.zeros(4))  # type: ignore[arg-type]


def test_assert_about_values() -> None:
    """What a program only asserts of its values is left out."""
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    model = Asserting()
    with pe.compile(model, (x, y), loss="mse", optimizer=pe.SGD()) as trainer:
        assert trainer.step(x, y, lr=0.1) == pytest.approx(F.mse_loss(model(x), y).item(), rel=1e-5)
