"""Trainers for a Cortex-M7, in system emulation on a board with 256 KB of RAM."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pockengine as pe
from pockengine.errors import PlanError
from pockengine.runtime.elf import undefined
from pockengine.runtime.footprint import footprint
from tests.machines.compare import compare, mlp

pytestmark = [pytest.mark.emulator, pytest.mark.slow]
SUPPORT = {"memset", "memcpy"}
STACK_BYTES = 12 << 10  # csrc/cortex_m/mps2_an500.ld


@pytest.mark.parametrize("optimizer", [pe.SGD(momentum=0.9), pe.AdamW()], ids=["sgd", "adamw"])
def test_mlp(optimizer: pe.SGD | pe.AdamW) -> None:
    """An MLP's losses are the host's, with arena, parameters, state and stack in 256 KB."""
    compared = compare(mlp(), (16, 32), 10, "stm32f746", optimizer, 0.01)
    compared.assert_equal()
    plan = compared.trainer.plan
    assert plan.arena_bytes + plan.param_bytes + plan.state_bytes + STACK_BYTES <= 256 << 10
    assert plan.alignment_bytes == 8
    assert compared.replay.stack_bytes is not None
    assert compared.replay.stack_bytes < STACK_BYTES


def test_deep_stack() -> None:
    """Long reductions use the kernels' whole scratch, and stay within the stack."""
    model = nn.Sequential(nn.Linear(600, 24), nn.Tanh(), nn.Linear(24, 10))
    compared = compare(model, (4, 600), 10, "stm32f746", pe.SGD(), 0.01)
    compared.assert_equal()
    assert compared.replay.stack_bytes is not None
    assert compared.replay.stack_bytes < STACK_BYTES


def test_code() -> None:
    """Kernels call nothing but memset and memcpy; the runtime's core is under 8 KB of flash."""
    batch = (torch.zeros(16, 32), torch.zeros(16, dtype=torch.long))
    trainer = pe.compile(
        mlp(), batch, loss="cross_entropy", optimizer=pe.SGD(momentum=0.9), target="stm32f746"
    )
    image = trainer.image()
    for name, code in zip(image.descriptor.kernels, image.kernel_objects(), strict=True):
        assert undefined(code) <= SUPPORT, name
    taken = footprint(image)
    assert taken.core_bytes < 8 << 10
    assert taken.flash_bytes < 1 << 20
    assert taken.ram_bytes == sum(trainer.plan.region_bytes[1:])


def test_too_large() -> None:
    """What the board has no memory for is refused before any kernel is built."""
    batch = (torch.zeros(64, 32), torch.zeros(64, dtype=torch.long))
    model = nn.Sequential(nn.Linear(32, 900), nn.ReLU(), nn.Linear(900, 10))
    with pytest.raises(PlanError) as caught:
        pe.compile(model, batch, loss="cross_entropy", optimizer=pe.SGD(), target="stm32f746")
    message = str(caught.value)
    assert message.startswith("stm32f746: needs ")
    assert "values hold" in message
    assert "has 320 KiB" in message
