"""One trace gives the graph that AOTAutograd gives; what is written goes to AOTAutograd."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pockengine.frontend import capture as module
from pockengine.frontend.capture import capture
from pockengine.ir.interpret import interpret


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
