"""Settings of all tests."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from pockengine import pipeline
from pockengine.ir.verify import verify
from pockengine.pipeline import Pass

MORE = int(os.environ.get("POCKENGINE_EXAMPLES", "1"))
"""How many times as many random examples as usual; above 1 they are new ones on each run."""


def examples(count: int) -> Callable[[Any], Any]:
    """Settings of a property: the same few examples in every run, many if ``MORE`` says so."""
    return settings(
        max_examples=count * MORE,
        derandomize=MORE == 1,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True, scope="session")
def _listening() -> None:
    """Ctrl-C is heard, by children too; a shell's background job starts with SIGINT ignored."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if ignored and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Every test starts from the same random numbers."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _verified_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every pass's graph is verified in tests; outside, only what the last pass makes."""
    for name in ("GRADIENTS", "UPDATES", "LAYOUT", "SAVING"):
        passes = getattr(pipeline, name)
        monkeypatch.setattr(pipeline, name, tuple((n, _verified(p)) for n, p in passes))


def _verified(rewrite: Pass) -> Pass:
    return lambda graph, context: verify(rewrite(graph, context))
