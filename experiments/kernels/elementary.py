"""Times the elementary functions of pockengine/lower/math.py on one core against PyTorch.

Data stays in the first-level cache (4096 elements). Run pinned:
``taskset -c 0 python experiments/kernels/elementary.py``; prints ns per element.
"""

from __future__ import annotations

import ctypes
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate

from pockengine.lower import math as elementary
from pockengine.lower import nest
from pockengine.lower.cache import KernelCache, load
from pockengine.lower.codegen import compile_blob
from pockengine.lower.features import host_target
from pockengine.lower.power import power

LANES = 16
ELEMENTS = 4096
REPEAT = 200

FUNCTIONS: dict[str, Callable[[nest.Expr], nest.Expr]] = {
    "copy": lambda x: x,
    "relu": elementary.relu,
    "floor": elementary.floor,
    "round": elementary.round_half_even,
    "exp": elementary.exp,
    "expm1": elementary.expm1,
    "sigmoid": elementary.sigmoid,
    "tanh": elementary.tanh,
    "erf": elementary.erf,
    "log": elementary.log,
    "log1p": elementary.log1p,
    "rsqrt": elementary.rsqrt,
    "sin": elementary.sin,
    "cos": elementary.cos,
    "pow": lambda x: power(x, x),
}
TORCH: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "copy": torch.clone,
    "pow": lambda x: torch.pow(x, x),
}


def kernel(function: Callable[[nest.Expr], nest.Expr]) -> Callable[..., int]:
    """A kernel that applies the function to 4096 elements again and again."""
    x, y = nest.operand("x", ELEMENTS), nest.operand("y", ELEMENTS)

    def step(i: nest.Expr) -> nest.Stmt:
        at = (i & (ELEMENTS // LANES - 1)) * LANES
        made, value = nest.held("value", function(nest.load(x, at, LANES)))
        return nest.block(*made, nest.store(y, at, value, LANES))

    body = nest.kernel([x, y], lambda begin, end: nest.serial("i", end - begin, step))
    cache = KernelCache(Path(tempfile.mkdtemp()))
    address = load(cache.put("0" * 64, compile_blob(body, host_target(), "kernel")))
    return ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)(address)


def best(run: Callable[[], object], rounds: int = 15) -> float:
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    """Time every function."""
    torch.set_num_threads(1)
    x = torch.rand(ELEMENTS) * 3.0 + 0.1
    y = torch.empty_like(x)
    long = torch.rand(16 * ELEMENTS) * 3.0 + 0.1
    rows = []
    for name, function in FUNCTIONS.items():
        run = kernel(function)
        units = REPEAT * ELEMENTS // LANES
        ours = best(partial(run, x.data_ptr(), y.data_ptr(), 0, units))
        eager = TORCH.get(name) or getattr(torch, name)
        theirs = best(partial(eager, long))
        rows.append((name, ours / REPEAT / ELEMENTS * 1e9, theirs / long.numel() * 1e9))
    print(tabulate(rows, headers=("function", "ns", "torch ns"), floatfmt=".3f"))


if __name__ == "__main__":
    main()
