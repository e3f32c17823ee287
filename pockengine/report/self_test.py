"""A small model compiled and stepped beside PyTorch: whether this installation computes rightly."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from pockengine.compile import compile as build
from pockengine.optimizer import SGD
from pockengine.scheme import Scheme

_STEPS = 3
_RATE = 0.1


def step_error() -> float:
    """The largest relative difference of a loss from PyTorch's over three steps.

    Raises:
        PockEngineError: the trainer cannot be compiled or run.
    """
    random = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random) / 4)
    inputs, labels = torch.randn(4, 8, generator=random), torch.arange(4)
    worst = 0.0
    with build(
        model, (inputs, labels), loss="cross_entropy", optimizer=SGD(), scheme=Scheme.full()
    ) as trainer:
        optimizer = torch.optim.SGD(model.parameters(), lr=_RATE)
        for _ in range(_STEPS):
            wanted = functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            wanted.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            found = trainer.step(inputs, labels, lr=_RATE)
            worst = max(worst, abs(found - wanted.item()) / wanted.item())
    return worst
