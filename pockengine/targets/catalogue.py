"""The targets by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pockengine.errors import InputError
from pockengine.targets import (
    host,
    linux_arm64,
    linux_x86_64,
    mkr1000,
    mps2_an500,
    nrf52840,
    raspberry_pi_4,
    riscv64,
    stm32f746,
)
from pockengine.targets.target import Target

TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        module.TARGET.name: module.TARGET
        for module in (
            host,
            linux_x86_64,
            linux_arm64,
            raspberry_pi_4,
            riscv64,
            stm32f746,
            mps2_an500,
            nrf52840,
            mkr1000,
        )
    }
)


def get_target(name: str) -> Target:
    """The target of a name.

    Raises:
        InputError: an unknown name; the message lists those that exist.
    """
    if not isinstance(name, str) or name not in TARGETS:
        raise InputError(
            where="target",
            found=f"there is no target {name!r}",
            needed=f"one of {', '.join(TARGETS)}",
            remedy="Run `pockengine targets`, which describes them",
        )
    return TARGETS[name]
