"""Capture: names, roles, tied and frozen parameters, batches, and what is refused."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import pockengine as pe
from pockengine.errors import CaptureError
from pockengine.frontend.capture import capture
from pockengine.ir.graph import calls, name_of, outputs_of, placeholders, role_of
from pockengine.ir.text import parse, text
from pockengine.ir.types import Role
from tests.oracles import EXAMPLES, Example, check_against_autograd, tied_mlp


@pytest.mark.parametrize("example", EXAMPLES)
def test_gradients(example: Callable[[], Example]) -> None:
    """The joint graph of each example gives autograd's loss and gradients."""
    found = check_against_autograd(example())
    assert found.loss is not None
    assert len(found.outputs) == 1


@pytest.mark.parametrize("example", EXAMPLES)
def test_text(example: Callable[[], Example]) -> None:
    """A captured graph survives being written and read."""
    written = text(example().graph)
    assert text(parse(written)) == written


def test_tied_parameters_have_one_name() -> None:
    """A weight under two names is one placeholder; frozen and unused parameters are told apart."""
    captured = tied_mlp().captured
    names = {name_of(node) for node in placeholders(captured.graph, Role.PARAM)}
    assert captured.aliases == {"third.weight": "second.weight"}
    assert "third.weight" not in names
    assert "first.bias" not in captured.requires_grad
    assert "first.bias" in outputs_of(captured.graph).gradients
    assert tied_mlp().model.first.bias.requires_grad is False  # type: ignore[union-attr]


class Keywords(nn.Module):
    """Two inputs, one of integers, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 3)
        self.register_buffer("shift", torch.ones(3))

    def forward(self, ids: Tensor, scale: Tensor) -> Tensor:
        """Take (N,) ids, scale them by (N, 1): (N, 3)."""
        return self.table(ids) * scale + self.shift  # type: ignore[no-any-return]


@pytest.mark.parametrize("as_dict", [True, False])
def test_inputs(as_dict: bool) -> None:
    """Several inputs come as a tuple or by keyword, and are named accordingly."""
    ids, scale = torch.tensor([0, 4]), torch.randn(2, 1)
    inputs: Any = {"ids": ids, "scale": scale} if as_dict else (ids, scale)
    captured = capture(Keywords(), (inputs, torch.randn(2, 3)), "mse")
    wanted = ("input.ids", "input.scale") if as_dict else ("input.0", "input.1")
    assert (captured.inputs, captured.targets) == (wanted, ("target",))
    roles = {name_of(node): role_of(node) for node in placeholders(captured.graph)}
    assert roles["shift"] is Role.CONST
    assert roles["table.weight"] is Role.PARAM


def test_one_tensor_given_twice() -> None:
    """An autoencoder's input is its target; in the graph they are two."""
    x = torch.randn(4, 3)
    graph = capture(nn.Linear(3, 3), (x, x), "mse").graph
    assert {name_of(node) for node in placeholders(graph) if node.users} >= {"input", "target"}


def test_views_of_a_parameter_need_no_scatter() -> None:
    """The gradient of a slice is a padded gradient, of an element a padded row."""

    class Slices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight[1:3] + self.weight[4]

    captured = capture(Slices(), (torch.randn(2, 3), torch.randn(2, 3)), "mse")
    assert len(list(calls(captured.graph, "pad"))) == 2
    assert not list(calls(captured.graph, "cat", "where"))


class Unknown(nn.Module):
    """Two ops that the vocabulary lacks, in two modules."""

    class Inner(nn.Module):
        """One of them."""

        def forward(self, x: Tensor) -> Tensor:
            """The largest so far along the last axis."""
            return x.cummax(-1).values

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner = nn.Linear(3, 3), self.Inner()

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> (N, 3)."""
        return torch.special.i0(self.inner(self.first(x)))


def test_unknown_ops() -> None:
    """All unknown ops are named in one error, with module and source line."""
    with pytest.raises(CaptureError) as caught:
        capture(Unknown(), (torch.randn(2, 3), torch.randn(2, 3)), "mse")
    message = str(caught.value)
    assert "capture of Unknown: what the vocabulary does not hold" in message
    assert "cummax.default (inner, test_capture.py, line" in message
    assert "i0.default" in message
    assert "test_capture.py, line" in message


class Branch(nn.Module):
    """Control flow that depends on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3) -> (N, 3)."""
        return self.first(x) if x.sum() > 0 else x  # type: ignore[no-any-return]


def test_control_flow_on_values() -> None:
    """A branch on a value is refused with what to avoid."""
    with pytest.raises(CaptureError, match=r"test_capture.py, line .*torch.where"):
        capture(Branch(), (torch.randn(2, 3), torch.randn(2, 3)), "mse")


@pytest.mark.parametrize("batch", [torch.zeros(2, 3), (torch.zeros(2, 3),), None])
def test_batch_that_is_no_pair(batch: Any) -> None:
    """A batch other than (inputs, targets) is refused."""
    with pytest.raises(CaptureError, match=r"compile\(example_batch\).*needed|a pair"):
        capture(nn.Linear(3, 3), batch, "mse")


def test_loss_that_is_no_scalar() -> None:
    """A loss of one number a sample is refused."""
    batch = (torch.randn(2, 3), torch.randn(2, 3))
    with pytest.raises(CaptureError, match="a loss that gives a scalar"):
        capture(nn.Linear(3, 3), batch, nn.MSELoss(reduction="none"))


@pytest.mark.parametrize("axis", [0, 2, None])
def test_weight_normalization(axis: int | None) -> None:
    """Directions and lengths of a weight are trained as in PyTorch."""
    torch.manual_seed(0)
    model = nn.Sequential(
        weight_norm(nn.Conv1d(4, 6, 3, groups=2), dim=axis), nn.Flatten(), nn.Linear(18, 2)
    )
    batch = (torch.randn(3, 4, 5), torch.randn(3, 2))
    theirs = copy.deepcopy(model)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    with pe.compile(model, batch, loss="mse", optimizer=pe.SGD(), threads=1) as trainer:
        for _ in range(3):
            optimizer.zero_grad()
            loss = F.mse_loss(theirs(batch[0]), batch[1])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            assert trainer.step(*batch, lr=0.1) == pytest.approx(loss.item(), rel=1e-5)
        found = trainer.state_dict()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(found[name], parameter.detach())
