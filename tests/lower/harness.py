"""Run a kernel on NumPy arrays: what the tests of `pockengine.lower` share."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tvm import tirx

from pockengine.lower.cache import KernelCache, load
from pockengine.lower.codegen import compile_blob
from pockengine.lower.features import host_target

Kernel = Callable[..., None]


_ZONE, _PATTERN = 1 << 12, 0xA5


def run(address: int, arrays: list[np.ndarray], begin: int, end: int) -> int:
    """Call ``int32_t k(operands..., int64_t, int64_t)`` at an address.

    It works on copies between guard zones, and must leave those as they were.
    """
    kinds = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int64] * 2
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(address)
    places, zones = [0] * len(arrays), []
    for start, stop, members in _spans(arrays):
        size = stop - start
        whole = np.full(_ZONE * 2 + size + 64, _PATTERN, np.uint8)
        ahead = _ZONE + (start - whole.ctypes.data) % 64  # aligned as the original
        zones.append((start, whole, ahead, size))
        ctypes.memmove(whole.ctypes.data + ahead, start, size)
        for member in members:
            places[member] = whole.ctypes.data + ahead + arrays[member].ctypes.data - start
    code = int(function(*places, begin, end))
    for start, whole, ahead, size in zones:
        ctypes.memmove(start, whole.ctypes.data + ahead, size)
        assert (whole[:ahead] == _PATTERN).all(), "the kernel wrote ahead of an operand"
        assert (whole[ahead + size :] == _PATTERN).all(), "the kernel wrote behind an operand"
    return code


def _spans(arrays: list[np.ndarray]) -> list[tuple[int, int, list[int]]]:
    """Stretches of memory (first byte, end) that arrays lie in, and which arrays those are."""
    bounds = [np.lib.array_utils.byte_bounds(array) for array in arrays]
    found: list[tuple[int, int, list[int]]] = []
    for place in sorted(range(len(arrays)), key=bounds.__getitem__):
        start, stop = bounds[place]
        if found and start < found[-1][1]:
            first, last, members = found[-1]
            found[-1] = (first, max(last, stop), [*members, place])
        else:
            found.append((start, stop, [place]))
    return found


def built(func: tirx.PrimFunc, folder: Path) -> Kernel:
    """A callable ``(begin, end, *arrays)`` for a function, by way of blob, cache and mapping."""
    blob = compile_blob(func, host_target(), "kernel_under_test")
    address = load(KernelCache(folder).put(hashlib.sha256(blob).hexdigest(), blob))

    def call(begin: int, end: int, *arrays: np.ndarray) -> None:
        assert run(address, list(arrays), begin, end) == 0

    return call
