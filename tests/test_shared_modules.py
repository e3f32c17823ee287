"""Modules that are registered under several names, and models that compute their weights."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import pockengine as pe


class Shared(nn.Module):
    """A block, with batch statistics, and an embedding that each have two names."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.BatchNorm1d(6))
        self.blocks = nn.ModuleList([block, nn.Linear(6, 6), block])
        self.encode = nn.Embedding(5, 6)
        self.decode = self.encode
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, tokens) -> (batch, 3)."""
        found: Tensor = self.encode(x).mean(1) + self.decode(x).amax(1)
        for block in self.blocks:
            found = block(found)
        return self.head(found)  # type: ignore[no-any-return]


@pytest.mark.parametrize("training", [True, False])
def test_a_module_of_two_names_trains_like_pytorch(training: bool) -> None:
    """Its parameters are tied; the model is as it was, and takes what was trained."""
    torch.manual_seed(0)
    model = Shared().train(training)
    eager = copy.deepcopy(model)
    before = copy.deepcopy(model.state_dict())
    x, y = torch.randint(5, (7, 3)), torch.randn(7, 3)
    rule = torch.optim.SGD(eager.parameters(), lr=0.1, momentum=0.9)
    optimizer = pe.SGD(momentum=0.9)
    with pe.compile(model, (x, y), loss="mse", optimizer=optimizer, threads=1) as trainer:
        assert all(type(p) is nn.Parameter for p in model.parameters())
        assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())
        for _ in range(3):
            loss = F.mse_loss(eager(x), y)
            rule.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            rule.step()
            assert trainer.step(x, y, lr=0.1) == pytest.approx(float(loss.detach()), rel=1e-4)
        model.load_state_dict(trainer.state_dict())
    for name, wanted in eager.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], wanted, rtol=1e-4, atol=1e-5)


def test_weights_that_are_computed_are_left_alone() -> None:
    """Spectral normalization refines its vectors each time that a weight is asked for."""
    torch.manual_seed(0)
    model = nn.Sequential(spectral_norm(nn.Linear(9, 17)), nn.Linear(17, 1))
    before = copy.deepcopy(model.state_dict())
    sample = torch.randn(5, 9), torch.randn(5, 1)
    pe.compile(model, sample, loss="mse", optimizer=pe.SGD(), threads=1).close()
    assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())
