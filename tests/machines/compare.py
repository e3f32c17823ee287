"""The same run on this host and on an emulated machine."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pockengine as pe
from pockengine.runtime.emulate import Replay
from pockengine.targets import get_target

STEPS = 5
RTOL = 1e-4  # other vector widths sum in another order; five steps carry that on
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Compared:
    """What both machines did, and the trainer of the other."""

    host_losses: list[float]
    replay: Replay
    trainer: pe.Trainer

    def assert_equal(self) -> None:
        """The losses are the host's."""
        assert len(self.replay.losses) == STEPS
        np.testing.assert_allclose(self.replay.losses, self.host_losses, rtol=RTOL)
        assert self.host_losses[0] != pytest.approx(self.host_losses[-1], rel=RTOL)


def compare(
    model: nn.Module,
    inputs: tuple[int, ...],
    classes: int,
    target: str,
    optimizer: pe.SGD | pe.AdamW,
    lr: float,
    micro_batches: int = 1,
) -> Compared:
    """Step one model through the same random batches here and there; skips without an emulator.

    Args:
        model: takes float32 of the shape ``inputs``.
        inputs: shape of a batch.
        classes: columns of the model's output.
        target: name of the machine.
        optimizer: of both runs.
        lr: the learning rate.
        micro_batches: parts of a batch.
    """
    emulator = get_target(target).emulator
    assert emulator
    if shutil.which(emulator[0]) is None:
        pytest.skip(f"there is no {emulator[0]}")
    batches: list[Batch] = [
        (torch.randn(inputs), torch.randint(0, classes, inputs[:1])) for _ in range(STEPS)
    ]
    made = {"loss": "cross_entropy", "optimizer": optimizer, "micro_batches": micro_batches}
    with pe.compile(model, batches[0], threads=1, **made) as host:  # type: ignore[arg-type]
        losses = [host.step(*batch, lr=lr) for batch in batches]
    trainer = pe.compile(model, batches[0], target=target, **made)  # type: ignore[arg-type]
    return Compared(losses, trainer.emulate(batches, lr=lr), trainer)


def mlp() -> nn.Module:
    """Two hidden layers with a ReLU, a GELU and a layer norm: (N, 32) to (N, 10)."""
    return nn.Sequential(
        nn.Linear(32, 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.GELU(),
        nn.LayerNorm(64),
        nn.Linear(64, 10),
    )


def settled(model: nn.Module, inputs: tuple[int, ...]) -> nn.Module:
    """The model in eval mode, its running statistics those of random inputs of this shape.

    Without them a deep model's fresh weights would give logits of about zero, and the same loss
    whatever a kernel did.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the average of all that was seen
    with torch.no_grad():
        model(torch.randn(inputs))
    return model.eval()
