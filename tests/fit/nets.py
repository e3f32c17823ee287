"""Small trainers, each compiled once a process."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import pockengine as pe
from pockengine.compile import link, prepare
from pockengine.modes import modes
from pockengine.program import Program

BATCH, FEATURES, CLASSES = 4, 6, 3


def data(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Samples whose class is their largest feature of the first three."""
    x = torch.randn(count, FEATURES, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :CLASSES].argmax(1)


@cache
def _classifier(partial: bool, accumulate: int) -> tuple[Program, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, CLASSES))
    prepared = prepare(
        model,
        data(BATCH),
        loss="cross_entropy",
        optimizer=pe.AdamW(),
        modes=modes(None, accumulate, None),
        partial=partial,
    )
    return link(prepared), dict(prepared.captured.tensors)


def classifier(*, partial: bool = False, accumulate: int = 1, threads: int = 1) -> pe.Trainer:
    """A net with dropout, AdamW and cross entropy, in its first state."""
    return pe.Trainer(*_classifier(partial, accumulate), threads=threads, seed=1)


class Pair(nn.Module):
    """A model with two inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(FEATURES, CLASSES), nn.Linear(2, CLASSES)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """(N, FEATURES), (N, 2) -> (N, CLASSES)."""
        out: Tensor = self.left(left) + self.right(right)
        return out


@cache
def _pair(by_name: bool) -> tuple[Program, dict[str, Tensor]]:
    torch.manual_seed(0)
    left, right = torch.randn(BATCH, FEATURES), torch.randn(BATCH, 2)
    inputs: Any = {"left": left, "right": right} if by_name else (left, right)
    batch = (inputs, torch.zeros(BATCH, dtype=torch.int64))
    prepared = prepare(Pair(), batch, loss="cross_entropy", optimizer=pe.SGD())
    return link(prepared), dict(prepared.captured.tensors)


def pair(*, by_name: bool) -> pe.Trainer:
    """A trainer with a dict or a tuple of inputs."""
    return pe.Trainer(*_pair(by_name), threads=1)
