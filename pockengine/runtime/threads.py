"""How many threads a step uses by default."""

from __future__ import annotations

import os


def default_threads() -> int:
    """All cores this process may use."""
    return len(os.sched_getaffinity(0))
