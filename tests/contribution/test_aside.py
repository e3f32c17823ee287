"""Standard output belongs to the caller."""

from __future__ import annotations

import ctypes
import sys

import pytest

from pockengine.contribution.aside import solver_output_aside


def test_native_output_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    """In the midst of what Python prints, which stays where it was."""
    sys.stdout.write("before\n")
    with solver_output_aside():
        ctypes.CDLL(None).puts(b"from the solver")
    sys.stdout.write("after\n")
    out, error = capfd.readouterr()
    assert out == "before\nafter\n"
    assert error == "from the solver\n"
