"""Standard output belongs to the caller, whatever a solver has to say."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_OUT, _ERROR = 1, 2
_C = ctypes.CDLL("msvcrt" if os.name == "nt" else None)


@contextmanager
def solver_output_aside() -> Iterator[None]:
    """What native code writes to standard output goes to standard error meanwhile.

    HiGHS prints a line of its own now and then, though it is told to be silent (jump-dev/HiGHS.jl,
    issue 312); it would stand in the midst of JSON that a command prints.
    """
    try:
        os.fstat(_ERROR)
        kept = os.dup(_OUT)
    except OSError:  # one of them is closed: nothing can be told apart
        yield
        return
    os.dup2(_ERROR, _OUT)
    try:
        yield
    finally:
        _C.fflush(None)  # what is still in its buffer
        os.dup2(kept, _OUT)
        os.close(kept)
