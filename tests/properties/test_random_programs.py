"""Random PyTorch programs, captured and compiled: loss, output and a step equal eager PyTorch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from hypothesis import given
from torch import Tensor

import pockengine as pe
from tests.conftest import examples
from tests.properties.programs import Program, programs

RATE, TOLERANCE = 0.05, 2e-4


def _close(what: str, mine: Tensor, wanted: Tensor) -> None:
    scale = max([1.0, *wanted.abs().flatten().tolist()]) if wanted.numel() else 1.0
    torch.testing.assert_close(
        mine, wanted, rtol=0, atol=TOLERANCE * scale, msg=lambda text: f"{what}: {text}"
    )


@pytest.mark.slow
@examples(3)
@given(programs())
def test_program_trains_like_pytorch(program: Program) -> None:
    """Output and loss ahead of a step of SGD in train mode; parameters and buffers after it."""
    torch.manual_seed(1)
    x = torch.randn(program.shape)
    eager = copy.deepcopy(program).train()
    with torch.no_grad():
        y = torch.randn_like(copy.deepcopy(eager)(x))
    steps = torch.optim.SGD(eager.parameters(), lr=RATE)
    loss = F.mse_loss(eager(x), y)
    loss.backward()  # type: ignore[no-untyped-call]
    steps.step()
    with pe.compile(program.train(), (x, y), loss="mse", optimizer=pe.SGD()) as trainer:
        found = trainer.step(x, y, lr=RATE)
        _close(f"{program.names}: loss", torch.tensor(found), loss.detach())
        state = trainer.state_dict()
        predicted = trainer.predict(x)
    for name, wanted in eager.state_dict().items():
        _close(f"{program.names}: {name}", state[name], wanted)
    with torch.no_grad():
        _close(f"{program.names}: output", predicted, eager.eval()(x))
