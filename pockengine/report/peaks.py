"""What this machine can do at most, measured where the kernels run that are compared with it.

The arithmetic peak is a loop of multiply-adds that never leaves the registers; the traffic peaks
are copies between two buffers that fill half of a cache, or the last one several times over.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Barrier
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pockengine.lower.cache import Request, build_many, kernel_key, load
from pockengine.lower.features import host_target
from pockengine.lower.program import build_kernels, host_cache
from pockengine.lower.tile_parameters import tile_parameters

_SECONDS = 0.002  # what one timing aims for
_TRIES = 2
_TRIES_TOGETHER = 8  # that all cores are free at once is rarer
_ITERATIONS = 20_000
_ACCUMULATORS = 12  # two units of four cycles need eight
_CPUS = Path("/sys/devices/system/cpu")
_CACHE_BYTES = {2: 1 << 20, 3: 32 << 20}  # where the system does not say
_LEVELS = (*(f"cache {level}" for level in _CACHE_BYTES), "memory")
_DRAM_BYTES = 512 << 20
_LARGEST_COPY = 16 << 20  # within a cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A level of memory.

    Args:
        name: ``cache 2``, ``cache 3`` or ``memory``.
        nbytes: what it holds, of several cores' own caches all together.
        bytes_per_s: read plus written by copies within it.
    """

    name: str
    nbytes: int
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Rates of the threads that work, all at once.

    Args:
        flops_per_s: float32 operations, a multiply-add counted as two.
        memories: the second and third cache, then what lies beyond them. Kernels that read more
            than they write, or stay in the first cache, can be faster than a copy in the second.
    """

    flops_per_s: float
    memories: tuple[Memory, ...]

    def bytes_per_s(self, nbytes: int) -> float:
        """The traffic peak for work on so many bytes."""
        return self.memory(nbytes).bytes_per_s

    def memory(self, nbytes: int) -> Memory:
        """The smallest memory that holds so many bytes."""
        fitting = [memory for memory in self.memories if nbytes <= memory.nbytes]
        return (fitting or self.memories[-1:])[0]

    def limit(self, flops: int, nbytes: int) -> tuple[str, float]:
        """What bounds a work, and the seconds that it takes at least: arithmetic or traffic."""
        memory = self.memory(nbytes)
        arithmetic, traffic = flops / self.flops_per_s, nbytes / memory.bytes_per_s
        return ("arithmetic", arithmetic) if arithmetic > traffic else (memory.name, traffic)


class PeakMeter:
    """Measures this machine again and again; the best is kept, as all else only slows it down.

    Args:
        threads: how many work at once, each at a probe of its own.

    Raises:
        BuildError: a kernel could not be built.
    """

    def __init__(self, threads: int = 1) -> None:
        target = host_target()
        caches = [_held_bytes(level, default, threads) for level, default in _CACHE_BYTES.items()]
        beyond = max(_DRAM_BYTES, 4 * caches[-1])
        own = [min(size // 2 // threads, _LARGEST_COPY) for size in caches] + [beyond // threads]
        self._sizes = (*caches, beyond)
        arithmetic = [_multiply_adds(target) for _ in range(threads)]
        self._flops = sum(flops for flops, _ in arithmetic)
        self._bytes = [size * threads for size in own]
        self._probes = [
            [run for _, run in arithmetic],
            *([_copy(size, target) for _ in range(threads)] for size in own),
        ]
        self._best = [float("inf")] * len(self._probes)

    def sample(self) -> None:
        """Measure each peak once, in about a tenth of a second; more where several threads do."""
        for index, probe in enumerate(self._probes):
            self._best[index] = min(self._best[index], _seconds(probe))

    @property
    def peaks(self) -> Peaks:
        """The best of all samples; there has to be one."""
        arithmetic, *copies = self._best
        levels = zip(_LEVELS, self._sizes, self._bytes, copies, strict=True)
        return Peaks(
            flops_per_s=self._flops / arithmetic,
            memories=tuple(
                Memory(name=name, nbytes=size, bytes_per_s=nbytes / seconds)
                for name, size, nbytes, seconds in levels
            ),
        )


def _held_bytes(level: int, default: int, threads: int) -> int:
    """What the data caches of a level hold for so many threads, as Linux tells it."""
    sizes = {}
    for folder in sorted(_CPUS.glob("cpu[0-9]*/cache/index*")):
        names = ("level", "type", "size", "shared_cpu_list")
        found = [(folder / name).read_text().strip() for name in names]
        if found[0] == str(level) and found[1] != "Instruction":
            sizes[found[3]] = int(found[2].rstrip("K")) << 10
    return sum(sorted(sizes.values())[:threads]) or default


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


def _seconds(runs: Sequence[Callable[[], None]]) -> float:
    """The shortest of some timings of runs, after one that warms up."""
    count = max(1, round(_SECONDS / max(_timed(runs, 1), 1e-7)))
    tries = _TRIES if len(runs) == 1 else _TRIES_TOGETHER
    return min(_timed(runs, count) for _ in range(tries if count > 1 else 1))


def _timed(runs: Sequence[Callable[[], None]], count: int) -> float:
    """Seconds a run, of ``count`` runs by a thread each, from the first's begin to the last's end.

    A kernel runs without the interpreter's lock.
    """
    if len(runs) == 1:
        begin, end = _repeated(runs[0], count)
        return (end - begin) / count
    ready = Barrier(len(runs))

    def together(run: Callable[[], None]) -> tuple[float, float]:
        ready.wait()
        return _repeated(run, count)

    with ThreadPoolExecutor(len(runs)) as pool:
        spans = list(pool.map(together, runs))
    return (max(end for _, end in spans) - min(begin for begin, _ in spans)) / count


def _repeated(run: Callable[[], None], count: int) -> tuple[float, float]:
    """When ``count`` runs began and ended."""
    begin = perf_counter()
    for _ in range(count):
        run()
    return begin, perf_counter()
