"""Targets are data: complete, sourced, and understood by the code generator."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace

import pytest

from pockengine.errors import InputError
from pockengine.targets import TARGETS, Target, get_target

KERNEL = """\
%a: f32[64] = input('a')
%b: f32[64] = exp(%a)
return loss=None, outputs=(%b,), gradients={}, updates=()
"""


def test_an_unknown_name_lists_the_known_ones() -> None:
    """Whoever mistypes a target is told what there is."""
    with pytest.raises(InputError) as caught:
        get_target("stm32")
    assert str(caught.value) == (
        "target: there is no target 'stm32'; one of host, linux-x86-64, linux-arm64, "
        "raspberry-pi-4, riscv64, stm32f746, mps2-an500, nrf52840, mkr1000. "
        "Run `pockengine targets`, which describes them"
    )


def test_every_number_needs_its_source() -> None:
    """A number without a source, or a source without a number, is refused."""
    with pytest.raises(ValueError, match="sram_bytes"):
        replace(get_target("host"), sram_bytes=1)
    with pytest.raises(ValueError, match="threads"):
        replace(get_target("mkr1000"), threads=None)


def test_targets_are_frozen() -> None:
    """Nothing can be changed by accident, the mappings neither."""
    target = get_target("stm32f746")
    with pytest.raises(FrozenInstanceError):
        target.sram_bytes = 0  # type: ignore[misc]
    with pytest.raises(TypeError):
        target.sources["sram_bytes"] = ""  # type: ignore[index]


def test_working_memory() -> None:
    """Microcontrollers work in their SRAM, larger machines in DRAM where it is known."""
    assert get_target("mkr1000").working_bytes == 32 << 10
    assert get_target("raspberry-pi-4").working_bytes == 2 << 30
    assert get_target("linux-arm64").working_bytes is None


def test_power_is_plausible() -> None:
    """Energy times rate is a power that such a board can draw: without the slip of the A72."""
    for target in TARGETS.values():
        if target.joules_per_flop and target.fma_flops_per_s:
            assert 0.005 < target.joules_per_flop * target.fma_flops_per_s < 5


@pytest.mark.parametrize("target", [t for t in TARGETS.values() if t.llvm], ids=lambda t: t.name)
def test_kernels_build(target: Target) -> None:
    """The code generator takes every target's description."""
    from pockengine.lower.build import build_object  # noqa: PLC0415 - imports TVM

    assert target.llvm is not None
    built = build_object(KERNEL, json.dumps(dict(target.llvm)), "kernel")
    assert built[:4] == b"\x7fELF"
    assert built[4] == target.pointer_bits // 32  # 1: 32-bit, 2: 64-bit
