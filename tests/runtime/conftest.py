"""Fixtures that open the toy trainer."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from pockengine.lower.link import build_shared
from pockengine.runtime.encoding import encode
from pockengine.runtime.engine import Engine
from pockengine.runtime.library import allocate
from tests.runtime.toy import KERNELS, toy_descriptor


@pytest.fixture(scope="session")
def toy_kernels() -> list[int]:
    """Addresses of the toy kernels in the order of the descriptor."""
    source = Path(__file__).parent / "csrc" / "toy.c"
    library = ctypes.CDLL(str(build_shared([source], name="toy")))
    found = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in KERNELS]
    return [address for address in found if address]


@pytest.fixture
def open_toy(toy_kernels: list[int]) -> Callable[..., Engine]:
    """Opens a toy trainer with w = 0."""

    def opened(threads: int = 1, descriptor: bytes | None = None) -> Engine:
        const, param, state, arena = map(allocate, toy_descriptor().region_bytes)
        return Engine(
            descriptor or encode(toy_descriptor()),
            toy_kernels,
            const=const,
            param=param,
            state=state,
            arena=arena,
            threads=threads,
        )

    return opened
