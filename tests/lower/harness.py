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


def run(address: int, arrays: list[np.ndarray], begin: int, end: int) -> int:
    """Call ``int32_t k(operands..., int64_t, int64_t)`` at an address."""
    kinds = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int64] * 2
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(address)
    return int(function(*(array.ctypes.data for array in arrays), begin, end))


def built(func: tirx.PrimFunc, folder: Path) -> Kernel:
    """A callable ``(begin, end, *arrays)`` for a function, by way of blob, cache and mapping."""
    blob = compile_blob(func, host_target(), "kernel_under_test")
    address = load(KernelCache(folder).put(hashlib.sha256(blob).hexdigest(), blob))

    def call(begin: int, end: int, *arrays: np.ndarray) -> None:
        assert run(address, list(arrays), begin, end) == 0

    return call
