"""Settings of all tests."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch

from pockengine.compile import Pass
from pockengine.ir.verify import verify

_COMPILE = import_module("pockengine.compile")


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _verified_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass's graph is verified in tests; outside, only what the last pass makes."""
    for pipeline in ("TRAINING", "PASSES"):
        passes = getattr(_COMPILE, pipeline)
        monkeypatch.setattr(_COMPILE, pipeline, tuple((n, _verified(p)) for n, p in passes))


def _verified(rewrite: Pass) -> Pass:
    return lambda graph, context: verify(rewrite(graph, context))
