"""Contractions on one core: GFLOP/s against the machine's peak and against PyTorch.

Run pinned: ``taskset -c 0 python experiments/kernels/contraction.py [--json FILE]``. Times are
processor times of this thread, best of many, so that a busy machine disturbs little; each kernel
is timed next to PyTorch's and next to the peak, since the clock changes with the load.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from tvm import tirx

from pockengine.lower.cache import KernelCache
from pockengine.lower.cache import load as mapped
from pockengine.lower.codegen import compile_blob
from pockengine.lower.contraction import contraction
from pockengine.lower.features import host_target
from pockengine.lower.nest import (
    Expr,
    Stmt,
    allocate,
    block,
    const,
    kernel,
    load,
    local,
    operand,
    serial,
    splat,
    store,
    zeros,
)
from pockengine.lower.summed import Contraction, Left, Right
from pockengine.lower.tile_parameters import tile_parameters

TARGET = host_target()
TILES = tile_parameters(TARGET)
LANES = TILES.vector_lanes

MATMULS = [(1024, 384, 1536), (1024, 1536, 384), (672, 672, 672)]
POINTWISE = [  # MobileNetV2 at 128 px: pixels of one image, input channels, output channels
    (4096, 32, 16),
    (4096, 16, 96),
    (1024, 96, 24),
    (1024, 24, 144),
    (256, 144, 32),
    (64, 384, 64),
    (64, 576, 96),
    (16, 960, 160),
    (16, 160, 960),
    (16, 320, 1280),
]
CASES = [  # name, layout, batch, rows, steps, columns
    *[("matmul", kind, 1, *size) for size in MATMULS for kind in ("panels", "direct")],
    *[
        (f"{name}, batch {images}", kind, 1, *size)
        for images in (8, 1)
        for pixels, c, o in POINTWISE
        for name, kind, size in (
            ("1x1", "panels" if o % LANES == 0 else "direct", (images * pixels, c, o)),
            ("1x1 input gradient", "transposed", (images * pixels, o, c)),
            ("1x1 weight gradient", "gradient", (c, images * pixels, o)),
        )
    ],
    ("classifier", "direct", 1, 8, 1280, 10),
    ("attention scores", "transposed", 96, 128, 32, 128),
    ("attention values", "direct", 96, 128, 128, 32),
]


class Timed:
    """A kernel with its operands, ready to be called and timed."""

    def __init__(self, func: tirx.PrimFunc, extent: int, arrays: Sequence[np.ndarray]) -> None:
        start = time.thread_time()
        blob = compile_blob(func, TARGET, "timed")
        self.build_ms = 1e3 * (time.thread_time() - start)
        self.bytes = len(blob)
        with tempfile.TemporaryDirectory() as folder:
            address = mapped(KernelCache(Path(folder)).put("timed", blob))
        kinds = [ctypes.c_void_p] * len(arrays) + [ctypes.c_int64] * 2
        self._function = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(address)
        self._arrays = arrays
        self._arguments = [ctypes.c_void_p(a.ctypes.data) for a in arrays]
        self._arguments += [ctypes.c_int64(0), ctypes.c_int64(extent)]

    def __call__(self) -> None:
        """Run the whole range once."""
        self._function(*self._arguments)


def seconds(call: Callable[[], object], at_least: float = 0.1) -> float:
    """Best processor time of one call."""
    call()
    start = time.thread_time()
    call()
    repeat = max(1, int(3e-4 / max(time.thread_time() - start, 1e-7)))
    best, begin = float("inf"), time.thread_time()
    while time.thread_time() - begin < at_least:
        start = time.thread_time()
        for _ in range(repeat):
            call()
        best = min(best, (time.thread_time() - start) / repeat)
    return best


def peak_kernel(steps: int = 4096) -> Timed:
    """Fused multiply-adds on 24 independent registers and nothing else."""
    sums, out = local("sums", 24, LANES), operand("out", 24 * LANES)
    factor = splat(tirx.FloatImm("float32", 0.5), LANES)

    def step(_: Expr) -> Stmt:
        return block(
            *(store(sums, const(i), load(sums, const(i)) * factor + factor) for i in range(24))
        )

    def body(begin: Expr, end: Expr) -> Stmt:
        return block(
            allocate(sums),
            *(store(sums, const(i), zeros(LANES)) for i in range(24)),
            serial("k", end - begin, step),
            *(store(out, const(i * LANES), load(sums, const(i)), LANES) for i in range(24)),
        )

    return Timed(kernel([out], body), steps, [np.zeros(24 * LANES, np.float32)])


def product(kind: str, batch: int, rows: int, steps: int, columns: int) -> tuple[Timed, Any]:
    """The kernel and PyTorch's call on the same numbers."""
    a, b = operand("a", batch * rows * steps), operand("b", batch * steps * columns)
    out = operand("out", batch * rows * columns)
    row_stride, step_stride = (1, rows) if kind == "gradient" else (steps, 1)

    def value(n: Expr, k: Sequence[Expr], column: Expr, lanes: int) -> Expr:
        at = k[0] * const(columns) + column
        if kind == "transposed":
            at = column * const(steps) + k[0]
        if kind == "panels":
            panel, within = (
                tirx.truncdiv(column, const(LANES)),
                tirx.truncmod(column, const(LANES)),
            )
            at = (panel * const(steps) + k[0]) * const(LANES) + within
        return load(b, n * const(steps * columns) + at, lanes)

    work = Contraction(
        batch=batch,
        rows=rows,
        columns=columns,
        reduction=(steps,),
        left=Left(
            buffer=a,
            base=lambda n, m: n * const(rows * steps) + m * const(row_stride),
            offset=lambda k: k[0] * const(step_stride),
        ),
        right=Right(value=value, direct=kind != "transposed", along_reduction=kind == "transposed"),
        store=lambda n, m, at, lanes, total: store(
            out, (n * const(rows) + m) * const(columns) + at, total, lanes
        ),
    )
    geometry = work.geometry(TILES)
    left, right = random(batch, rows, steps), random(batch, steps, columns)
    arrays = [left, right, random(batch, rows, columns)]
    timed = Timed(
        kernel([a, b, out], lambda s, e: contraction(work, geometry, s, e)), geometry.extent, arrays
    )
    x, y = torch.from_numpy(left), torch.from_numpy(right)
    if kind == "gradient":
        x = x.reshape(batch, steps, rows).transpose(1, 2)
    if kind == "transposed":
        y = y.reshape(batch, columns, steps).transpose(1, 2)
    x, y = (x, y) if batch > 1 else (x[0], y[0])
    into = torch.empty(*x.shape[:-1], columns)
    return timed, lambda: torch.matmul(x, y, out=into)


def convolution(size: int = 56, channels: int = 64) -> tuple[Timed, Any]:
    """3x3, stride 1, a padded NHWC image; PyTorch in its better layout, channels_last."""
    line, taps = size + 2, 9 * channels
    x, w = operand("x", line * line * channels), operand("w", taps * channels)
    y = operand("y", size * size * channels)

    def base(_: Expr, m: Expr) -> Expr:
        row, column = tirx.floordiv(m, const(size)), tirx.floormod(m, const(size))
        return (row * const(line) + column) * const(channels)

    def value(_: Expr, k: Sequence[Expr], column: Expr, lanes: int) -> Expr:
        tap = (k[0] * const(3) + k[1]) * const(channels) + k[2]
        return load(
            w, (tirx.truncdiv(column, const(LANES)) * const(taps) + tap) * const(LANES), lanes
        )

    work = Contraction(
        batch=1,
        rows=size * size,
        columns=channels,
        reduction=(3, 3, channels),
        left=Left(
            buffer=x,
            base=base,
            offset=lambda k: (k[0] * const(line) + k[1]) * const(channels) + k[2],
        ),
        right=Right(value=value),
        store=lambda _, m, at, lanes, total: store(y, m * const(channels) + at, total, lanes),
        row_period=size,
    )
    geometry = work.geometry(TILES)
    arrays = [random(line * line * channels), random(taps * channels), random(size**2 * channels)]
    func = kernel([x, w, y], lambda s, e: contraction(work, geometry, s, e))
    image = torch.randn(1, channels, size, size).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, channels, 3, 3).contiguous(memory_format=torch.channels_last)
    return Timed(func, geometry.extent, arrays), lambda: torch.conv2d(image, weight, padding=1)


def random(*shape: int) -> np.ndarray:
    """Normal float32 numbers, 64-byte aligned."""
    size = int(np.prod(shape))
    memory = np.empty(size + 16, np.float32)
    start = -memory.ctypes.data // 4 % 16
    array = memory[start : start + size].reshape(shape)
    array[...] = np.random.default_rng(0).standard_normal(shape)
    return array


def row(
    name: str, kind: str, flops: float, timed: Timed, other: Any, peak: Timed
) -> dict[str, Any]:
    """One line of the table."""
    rate, theirs = flops / seconds(timed) / 1e9, flops / seconds(other) / 1e9
    top = 2 * 24 * LANES * 4096 / seconds(peak, 0.02) / 1e9
    return {
        "work": name,
        "layout": kind,
        "GFLOP/s": round(rate, 1),
        "of peak": round(rate / top, 2),
        "PyTorch": round(theirs, 1),
        "ratio": round(rate / theirs, 2),
        "build ms": round(timed.build_ms),
        "bytes": timed.bytes,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    peak, rows = peak_kernel(), []
    for name, kind, batch, m, k, n in CASES:
        label = f"{name}: {m} x {k} x {n}"
        flops = 2.0 * batch * m * k * n
        rows.append(row(label, kind, flops, *product(kind, batch, m, k, n), peak))
    flops = 2.0 * 56 * 56 * 9 * 64 * 64
    rows.append(row("conv 3x3, 56 x 56, 64 -> 64", "panels", flops, *convolution(), peak))
    print(tabulate(rows, headers="keys", tablefmt="github"))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
