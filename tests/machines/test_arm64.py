"""Trainers for 64-bit Arm under Linux, in user-mode emulation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import pockengine as pe
from pockengine.errors import InputError, TrainError
from pockengine.tasks import mobilenet_v2
from tests.machines.compare import compare, mlp, settled

pytestmark = [pytest.mark.emulator, pytest.mark.slow]


@pytest.mark.parametrize("optimizer", [pe.SGD(momentum=0.9), pe.AdamW()], ids=["sgd", "adamw"])
def test_mlp(optimizer: pe.SGD | pe.AdamW) -> None:
    """An MLP's losses are the host's; before and after, the trainer cannot run here."""
    compared = compare(mlp(), (16, 32), 10, "linux-arm64", optimizer, 0.01)
    compared.assert_equal()
    message = "trainer for linux-arm64: its kernels are code for another machine"
    with pytest.raises(TrainError, match=message):
        compared.trainer.step(torch.zeros(16, 32), torch.zeros(16, dtype=torch.long), lr=0.1)


def test_emulation_changes_nothing() -> None:
    """Emulated steps leave the trainer's own parameters alone, and begin from them each time."""
    model = mlp()
    compared = compare(model, (16, 32), 10, "linux-arm64", pe.SGD(), 0.1)
    for name, tensor in compared.trainer.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_mobilenet_v2() -> None:
    """A narrow MobileNetV2 in full: convolutions, folded batch norms, masks and residuals."""
    model = mobilenet_v2(0.35, classes=10)
    nn.init.normal_(model.classifier[1].weight, std=0.1)
    settled(model, (16, 3, 32, 32))
    compare(model, (2, 3, 32, 32), 10, "linux-arm64", pe.SGD(momentum=0.9), 1e-4).assert_equal()


def test_micro_batches() -> None:
    """The tables of a step in rounds are the same everywhere."""
    compare(
        mlp(), (16, 32), 10, "linux-arm64", pe.SGD(momentum=0.9), 0.1, micro_batches=4
    ).assert_equal()


def test_export_needs_another_machine(tmp_path: Path) -> None:
    """A trainer for the host has no object files to export."""
    batch = (torch.zeros(2, 32), torch.zeros(2, dtype=torch.long))
    with (
        pe.compile(mlp(), batch, loss="cross_entropy", optimizer=pe.SGD()) as trainer,
        pytest.raises(InputError, match="compiled for host"),
    ):
        trainer.export(tmp_path)
