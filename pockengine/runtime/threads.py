"""How many threads a step uses where the user does not say.

Two virtual cores may be two halves of one: then a second thread costs hand-overs and brings little.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Callable
from threading import Thread

from pockengine.lower.link import build_shared
from pockengine.runtime.library import CSRC

_WORTHWHILE = 1.5  # DESIGN.md, decision 15
_ROUNDS = 1_000_000  # some milliseconds, beside which starting a thread is nothing
_TRIALS = 8


def default_threads() -> int:
    """All cores this process may use if two work at 1.5 times the rate of one or more, else one.

    Raises:
        BuildError: the probe could not be compiled.
    """
    cores = len(os.sched_getaffinity(0))
    return cores if cores > 1 and two_core_rate() >= _WORTHWHILE else 1


@functools.cache
def two_core_rate() -> float:
    """Multiply-adds a second of two threads over those of one, at their best; measured once."""
    probe = ctypes.CDLL(str(build_shared((CSRC / "probe.c",), name="probe"))).pe_probe
    probe.argtypes = [ctypes.c_int64, ctypes.c_float]
    probe.restype = ctypes.c_float

    def work() -> None:
        probe(_ROUNDS, 1.0)

    def together() -> None:
        other = Thread(target=work)
        other.start()
        work()
        other.join()

    work()  # wakes the core
    one, two = (min(_seconds(run) for _ in range(_TRIALS)) for run in (work, together))
    return 2 * one / two


def _seconds(run: Callable[[], None]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
