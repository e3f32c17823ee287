"""``default_threads``: more than one only where that pays."""

from __future__ import annotations

import os

import pytest

from pockengine.runtime import threads


@pytest.mark.parametrize(("rate", "wanted"), [(1.1, 1), (1.49, 1), (1.5, 4), (2.0, 4)])
def test_default(monkeypatch: pytest.MonkeyPatch, rate: float, wanted: int) -> None:
    """All cores from a rate of 1.5 on, else one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr(threads, "two_core_rate", lambda: rate)
    assert threads.default_threads() == wanted


def test_one_core_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may use one core gets one thread without a probe."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    monkeypatch.setattr(threads, "two_core_rate", None)
    assert threads.default_threads() == 1


def test_probe() -> None:
    """The probe gives a plausible rate, and is asked once."""
    assert 0.1 < threads.two_core_rate() < 4
    assert threads.two_core_rate() == threads.two_core_rate()
