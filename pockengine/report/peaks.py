"""What this machine can do at most, measured where the kernels run that are compared with it.

The arithmetic peak is a loop of multiply-adds that never leaves the registers; the traffic peaks
are copies between two buffers that fill half of a cache, or the last one several times over.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pockengine.lower.cache import Request, build_many, kernel_key, load
from pockengine.lower.features import host_target
from pockengine.lower.program import build_kernels, host_cache
from pockengine.lower.tiles import tile_parameters

_SECONDS = 0.002  # what one timing aims for
_ITERATIONS = 20_000
_ACCUMULATORS = 12  # two units of four cycles need eight
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_CACHE_BYTES = {2: 1 << 20, 3: 32 << 20}  # where the system does not say
_DRAM_BYTES = 512 << 20
_LARGEST_COPY = 16 << 20  # within a cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A level of memory.

    Args:
        nbytes: what it holds.
        bytes_per_s: read plus written by a copy within it.
    """

    nbytes: int
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Rates of one core.

    Args:
        flops_per_s: float32 operations, a multiply-add counted as two.
        memories: the second and third cache, then what lies beyond them. Kernels that read more
            than they write, or stay in the first cache, can be faster than a copy in the second.
    """

    flops_per_s: float
    memories: tuple[Memory, ...]

    def bytes_per_s(self, nbytes: int) -> float:
        """The traffic peak for work on so many bytes: of the smallest memory that holds them."""
        fitting = [memory for memory in self.memories if nbytes <= memory.nbytes]
        return (fitting or self.memories[-1:])[0].bytes_per_s


class PeakMeter:
    """Measures this machine again and again; the best is kept, as all else only slows it down.

    Raises:
        BuildError: a kernel could not be built.
    """

    def __init__(self) -> None:
        target = host_target()
        caches = [_cache_bytes(level, default) for level, default in _CACHE_BYTES.items()]
        beyond = max(_DRAM_BYTES, 4 * caches[-1])
        self._sizes = (*caches, beyond)
        self._flops, arithmetic = _multiply_adds(target)
        copies = [_copy(min(size // 2, _LARGEST_COPY), target) for size in caches]
        self._probes = [arithmetic, *copies, _copy(beyond, target)]
        self._bytes = [min(size // 2, _LARGEST_COPY) for size in caches] + [beyond]
        self._best = [float("inf")] * len(self._probes)

    def sample(self) -> None:
        """Measure each peak once, in about a tenth of a second."""
        for index, probe in enumerate(self._probes):
            self._best[index] = min(self._best[index], _seconds(probe))

    @property
    def peaks(self) -> Peaks:
        """The best of all samples; there has to be one."""
        arithmetic, *copies = self._best
        return Peaks(
            flops_per_s=self._flops / arithmetic,
            memories=tuple(
                Memory(nbytes=size, bytes_per_s=nbytes / seconds)
                for size, nbytes, seconds in zip(self._sizes, self._bytes, copies, strict=True)
            ),
        )


def _cache_bytes(level: int, default: int) -> int:
    """Size of a data cache as Linux tells it."""
    for index in sorted(_CACHES.glob("index*")):
        found = [(index / name).read_text().strip() for name in ("level", "type", "size")]
        if found[0] == str(level) and found[1] != "Instruction":
            return int(found[2].rstrip("K")) << 10
    return default


def _multiply_adds(target: Mapping[str, Any]) -> tuple[int, Callable[[], None]]:
    """The operations of a run of multiply-adds, and the run."""
    tiles = tile_parameters(target)
    count = min(_ACCUMULATORS, tiles.vector_registers - 4)
    spec = json.dumps(dict(target), sort_keys=True)
    key = kernel_key(f"x * x + x in {count} vectors", target)
    request = Request(key, build_multiply_adds, (count, tiles.vector_lanes, spec))
    path = build_many(host_cache(), [request])[key]
    values = np.full(count * tiles.vector_lanes, 0.5, np.float32)
    flops = 2 * count * tiles.vector_lanes * _ITERATIONS
    return flops, _caller(load(path), [values], _ITERATIONS)


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
        return nest.block(
            *(put(index, get(index) * get(index) + get(index)) for index in everywhere)
        )

    def body(begin: nest.Expr, end: nest.Expr) -> nest.Stmt:
        loop = nest.serial("unit", end - begin, once, begin)
        return nest.block(
            nest.allocate(held), *map(fill, everywhere), loop, *map(drain, everywhere)
        )

    return compile_blob(nest.kernel([values], body), json.loads(target), "multiply_adds")


def _copy(nbytes: int, target: Mapping[str, Any]) -> Callable[[], None]:
    """A copy whose source and destination are ``nbytes`` together."""
    count = nbytes // 8
    text = (
        f"%a: f32[{count}] = input('a')\n%b: f32[{count}] = copy(%a)\n"
        "return loss=None, outputs=(%b,), gradients={}, updates=()\n"
    )
    built = build_kernels([text], target)[text]
    buffers: list[NDArray[np.float32]] = [np.zeros(count, np.float32) for _ in range(2)]
    for buffer in buffers:
        buffer[:] = 1.0  # pages are there before time is taken
    return _caller(load(built.path), buffers, built.extent)


def _caller(address: int, arrays: list[NDArray[np.float32]], extent: int) -> Callable[[], None]:
    """Runs a kernel over its range; keeps its arrays."""
    kinds = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int64] * 2
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(address)

    def run() -> None:
        function(*(array.ctypes.data for array in arrays), 0, extent)

    return run


def _seconds(run: Callable[[], None]) -> float:
    """The shorter of two timings of a run, after one that warms up."""
    count = max(1, round(_SECONDS / max(_timed(run, 1), 1e-7)))
    return min(_timed(run, count) for _ in range(2 if count > 1 else 1))


def _timed(run: Callable[[], None], count: int) -> float:
    """Seconds a run, of ``count`` runs."""
    start = perf_counter()
    for _ in range(count):
        run()
    return (perf_counter() - start) / count
