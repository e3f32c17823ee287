"""The C runtime as a library of this host: built once, its structures and functions as ctypes."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pockengine.lower.link import build_shared

CSRC = Path(__file__).parent / "csrc"
CORE = (CSRC / "core.c", CSRC / "step.c")

INPUT_NOT_FINITE = -12
INPUT_OUT_OF_RANGE = -13
LOSS_NOT_FINITE = -14
KERNEL_FAILED = -15
TORN = -16


class Launcher(ctypes.Structure):
    """``pe_launcher``."""

    _fields_ = (("ctx", ctypes.c_void_p), ("parallel", ctypes.c_void_p))


class Fault(ctypes.Structure):
    """``pe_fault``."""

    _fields_ = (
        ("code", ctypes.c_int32),
        ("entry", ctypes.c_uint32),
        ("call", ctypes.c_uint32),
        ("port", ctypes.c_char_p),
        ("element", ctypes.c_uint64),
        ("integer", ctypes.c_int64),
        ("real", ctypes.c_double),
        ("low", ctypes.c_int64),
        ("high", ctypes.c_int64),
    )


class TrainerStruct(ctypes.Structure):
    """``pe_trainer``: the runtime's own fields, opaque here, then the fault."""

    _fields_ = (
        ("pointers", ctypes.c_void_p * 9),
        ("regions", ctypes.c_void_p * 4),
        ("launcher", Launcher),
        ("torn", ctypes.c_int32),
        ("fault", Fault),
    )


@cache
def library() -> ctypes.CDLL:
    """The C runtime of this host, built on first use and kept in the cache folder.

    Raises:
        BuildError: it could not be compiled.
    """
    return opened(build_shared((*CORE, CSRC / "os_posix.c"), name="runtime", flags=("-pthread",)))


def opened(path: Path) -> ctypes.CDLL:
    """A build of the runtime with the types of its functions declared."""
    runtime = ctypes.CDLL(str(path))
    pointer = ctypes.c_void_p
    runtime.pe_run_timed.argtypes = [pointer, ctypes.c_int32, pointer, pointer, pointer, pointer]
    runtime.pe_open.argtypes = [
        *(pointer, pointer, ctypes.c_size_t),
        *(pointer, ctypes.c_size_t, pointer, pointer),
    ]
    runtime.pe_clear_torn.argtypes = [pointer]
    runtime.pe_error_text.restype = ctypes.c_char_p
    runtime.pe_pool_create.restype = pointer
    runtime.pe_pool_destroy.argtypes = [pointer]
    runtime.pe_pool_launcher.argtypes = [pointer]
    runtime.pe_pool_launcher.restype = Launcher
    return runtime


_HUGE_PAGES = 8 << 20  # bytes of a region from which fewer, larger pages are asked for


def allocate(nbytes: int, alignment: int = 64) -> NDArray[np.uint8]:
    """Zeroed memory for a region; pages never touched cost nothing, a forked process has its own.

    Args:
        nbytes: how much, possibly 0.
        alignment: of its first byte, a power of two.
    """
    room = max(nbytes + max(alignment - mmap.PAGESIZE, 0), 1)
    pages = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if room >= _HUGE_PAGES and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them does as well, a little slower
            pages.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(pages, dtype=np.uint8)
    start = -whole.ctypes.data % alignment
    return whole[start : start + nbytes]
