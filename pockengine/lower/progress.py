"""How far a build is, told on a terminal or in a notebook while it lasts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeAlias

from pockengine.watched import is_watched

Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many kernels are built, and how many are to be; first with 0."""


def teller(progress: Progress | bool | None) -> Progress | None:
    """What is called while kernels are built.

    Args:
        progress: a function of one's own; True for a line on standard error, False for none, None
            for one where a person sees it: standard error is a terminal's or a notebook's.
    """
    if callable(progress):
        return progress
    wanted = is_watched() if progress is None else progress
    return _line if wanted else None


def _line(done: int, total: int) -> None:
    """One line that is written over and over, and is gone when all is built."""
    text = f"building kernels: {done} of {total}"
    end = "\r" + " " * len(text) + "\r" if done == total else ""
    sys.stderr.write(f"\r{text}{end}")
    sys.stderr.flush()
