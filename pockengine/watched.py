"""Whether a person sees what is written on standard error."""

from __future__ import annotations

import sys


def is_watched() -> bool:
    """Whether it goes to a terminal, or to a notebook, whose stream is no terminal."""
    stream = sys.stderr
    if stream is None:
        return False
    return stream.isatty() or type(stream).__module__.partition(".")[0] == "ipykernel"
