"""What this machine can do at most, measured where the kernels run that are compared with it.

The arithmetic peak is a loop of multiply-adds that never leaves the registers; the traffic peaks are
copies between buffers that fill half of a cache, or many times the last one.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pockengine.lower.cache import Request, build_many, kernel_key, load
from pockengine.lower.features import host_target
from pockengine.lower.program import build_kernels, host_cache
from pockengine.lower.tiles import tile_parameters

_REPEATS = 7
_SECONDS = 0.01  # the least one timing lasts
_ITERATIONS = 100_000
_ACCUMULATORS = 12  # two units of four cycles need eight
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_L2_BYTES, _L3_BYTES = 1 << 20, 32 << 20  # where the system does not say
_DRAM_BYTES = 512 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Rates of one core.

    Args:
        flops_per_s: float32 operations, a multiply-add counted as two.
        l2_bytes: what the second-level cache holds.
        l3_bytes: what the third-level cache holds.
        l2_bytes_per_s: read plus written by a copy within the second-level cache.
        l3_bytes_per_s: likewise within the third-level cache.
        dram_bytes_per_s: likewise beyond all caches.
    """

    flops_per_s: float
    l2_bytes: int
    l3_bytes: int
    l2_bytes_per_s: float
    l3_bytes_per_s: float
    dram_bytes_per_s: float

    def bytes_per_s(self, nbytes: int) -> float:
        """The traffic peak for work on so many bytes: of the smallest memory that holds them."""
        if nbytes <= self.l2_bytes:
            return self.l2_bytes_per_s
        return self.l3_bytes_per_s if nbytes <= self.l3_bytes else self.dram_bytes_per_s


def measure_peaks() -> Peaks:
    """Measure this machine, in about a second.

    Raises:
        BuildError: a kernel could not be built.
    """
    target = host_target()
    l2_bytes, l3_bytes = _cache_bytes(2, _L2_BYTES), _cache_bytes(3, _L3_BYTES)
    return Peaks(
        flops_per_s=_flops_per_s(target),
        l2_bytes=l2_bytes,
        l3_bytes=l3_bytes,
        l2_bytes_per_s=_copy_bytes_per_s(l2_bytes // 2, target),
        l3_bytes_per_s=_copy_bytes_per_s(min(l3_bytes // 2, 8 * l2_bytes), target),
        dram_bytes_per_s=_copy_bytes_per_s(max(_DRAM_BYTES, 4 * l3_bytes), target),
    )


def best(one: Peaks, other: Peaks) -> Peaks:
    """The better of two measurements: whatever else runs only makes a machine slower."""
    return replace(
        one,
        **{
            field.name: max(getattr(one, field.name), getattr(other, field.name))
            for field in fields(one)
        },
    )


def _cache_bytes(level: int, default: int) -> int:
    """Size of a cache as Linux tells it."""
    for index in sorted(_CACHES.glob("index*")):
        if (index / "level").read_text().strip() == str(level):
            size = (index / "size").read_text().strip()
            return int(size.rstrip("K")) << 10
    return default


def _flops_per_s(target: Mapping[str, Any]) -> float:
    tiles = tile_parameters(target)
    count = min(_ACCUMULATORS, tiles.vector_registers - 4)
    spec = json.dumps(dict(target), sort_keys=True)
    key = kernel_key(f"x * x + x in {count} vectors", target)
    request = Request(key, build_multiply_adds, (count, tiles.vector_lanes, spec))
    path = build_many(host_cache(), [request])[key]
    values = np.full(count * tiles.vector_lanes, 0.5, np.float32)
    seconds = _seconds(load(path), [values], _ITERATIONS)
    return 2 * count * tiles.vector_lanes * _ITERATIONS / seconds


def build_multiply_adds(count: int, lanes: int, target: str) -> bytes:
    """Code of ``x = x * x + x`` over ``count`` vectors for each unit of a kernel's range.

    Args:
        count: vectors, all of them held in registers.
        lanes: float32 elements of a vector.
        target: resolved TVM target as JSON.
    """
    from pockengine.lower import nest  # noqa: PLC0415 - imports TVM
    from pockengine.lower.codegen import compile_blob  # noqa: PLC0415

    values = nest.operand("values", count * lanes)
    held = nest.local("held", count, lanes)
    everywhere = range(count)

    def fill(index: int) -> nest.Stmt:
        return put(index, nest.load(values, nest.const(index * lanes), lanes))

    def drain(index: int) -> nest.Stmt:
        return nest.store(values, nest.const(index * lanes), get(index), lanes)

    def get(index: int) -> nest.Expr:
        return nest.load(held, nest.const(index))

    def put(index: int, value: nest.Expr) -> nest.Stmt:
        return nest.store(held, nest.const(index), value)

    def once(_: nest.Expr) -> nest.Stmt:
        return nest.block(*(put(index, get(index) * get(index) + get(index)) for index in everywhere))

    def body(begin: nest.Expr, end: nest.Expr) -> nest.Stmt:
        loop = nest.serial("unit", end - begin, once, begin)
        return nest.block(nest.allocate(held), *map(fill, everywhere), loop, *map(drain, everywhere))

    return compile_blob(nest.kernel([values], body), json.loads(target), "multiply_adds")


def _copy_bytes_per_s(nbytes: int, target: Mapping[str, Any]) -> float:
    """Traffic of a copy whose source and destination are ``nbytes`` together."""
    count = nbytes // 8 // 64 * 64
    text = (
        f"%a: f32[{count}] = input('a')\n%b: f32[{count}] = copy(%a)\n"
        "return loss=None, outputs=(%b,), gradients={}, updates=()\n"
    )
    built = build_kernels([text], target)[text]
    buffers: list[NDArray[np.float32]] = [np.zeros(count, np.float32) for _ in range(2)]
    for buffer in buffers:
        buffer[:] = 1.0  # pages are there before time is taken
    return 8 * count / _seconds(load(built.path), buffers, built.extent)


def _seconds(address: int, arrays: list[NDArray[np.float32]], extent: int) -> float:
    """The shortest time of one run of a kernel over its range."""
    kinds = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int64] * 2
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(address)
    pointers = [array.ctypes.data for array in arrays]

    def run() -> None:
        function(*pointers, 0, extent)

    count = max(1, round(_SECONDS / _timed(run, 1)))
    return min(_timed(run, count) for _ in range(_REPEATS))


def _timed(run: Callable[[], None], count: int) -> float:
    """Seconds a run, of ``count`` runs."""
    start = perf_counter()
    for _ in range(count):
        run()
    return (perf_counter() - start) / count
