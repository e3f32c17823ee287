"""Times depthwise convolution of MobileNetV2 at 128 px on one core against PyTorch (NCHW, NHWC).

Run pinned: ``taskset -c 0 python experiments/kernels/depthwise.py [batch ...]``; prints GFLOP/s,
our GB/s (each operand counted once), the speed relative to PyTorch and the milliseconds to build.
"""

from __future__ import annotations

import ctypes
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tabulate import tabulate
from tvm import tirx

from pockengine.lower import depthwise, nest
from pockengine.lower.cache import KernelCache, load
from pockengine.lower.codegen import compile_blob
from pockengine.lower.features import host_target
from pockengine.lower.sliding import Depthwise
from pockengine.lower.window import Sweep

# Each is side, channels and stride.
LAYERS = ((64, 32, 1), (64, 96, 2), (32, 144, 1), (32, 144, 2), (16, 192, 1), (16, 192, 2),
          (8, 384, 1), (8, 576, 1), (8, 576, 2), (4, 960, 1))  # fmt: skip
KERNEL, LANES = 3, 16


def shape_of(batch: int, side: int, channels: int, stride: int) -> Depthwise:
    """A square 3x3 layer with padding 1."""
    sweep = Sweep(
        size=side,
        kernel=KERNEL,
        stride=stride,
        padding=KERNEL // 2,
        windows=(side - 1) // stride + 1,
    )
    return Depthwise(batch=batch, channels=channels, rows=sweep, columns=sweep, lanes=LANES)


def functions(shape: Depthwise) -> dict[str, tuple[tirx.PrimFunc, int]]:
    """The three kernels, on operands x, w and y, and their extents."""
    n, c = shape.batch, shape.channels
    height, width = shape.rows.size, shape.columns.size
    out_height, out_width = shape.rows.windows, shape.columns.windows
    x = nest.operand("x", n * height * width * c)
    w = nest.operand("w", shape.rows.kernel * shape.columns.kernel * c)
    y = nest.operand("y", n * out_height * out_width * c)

    def x_at(*at: nest.Expr) -> nest.Expr:
        return ((at[0] * height + at[1]) * width + at[2]) * c + at[3]

    def y_at(*at: nest.Expr) -> nest.Expr:
        return ((at[0] * out_height + at[1]) * out_width + at[2]) * c + at[3]

    def w_at(*at: nest.Expr) -> nest.Expr:
        return (at[0] * shape.columns.kernel + at[1]) * c + at[2]

    def reader(buffer: nest.Buffer, at: Callable[..., nest.Expr]) -> Callable[..., nest.Expr]:
        return lambda *place: nest.load(buffer, at(*place[:-1]), place[-1])

    def writer(buffer: nest.Buffer, at: Callable[..., nest.Expr]) -> Callable[..., nest.Stmt]:
        return lambda *place: nest.store(buffer, at(*place[:-2]), place[-1], place[-2])

    read_x, read_w, read_y = reader(x, x_at), reader(w, w_at), reader(y, y_at)
    write_x, write_w, write_y = writer(x, x_at), writer(w, w_at), writer(y, y_at)
    rows: dict[str, tuple[Callable[[nest.Expr, nest.Expr], nest.Stmt], int]] = {
        "forward": (
            lambda b, e: depthwise.forward(shape, read_x, read_w, write_y, b, e),
            shape.forward_extent,
        ),
        "input": (
            lambda b, e: depthwise.input_gradient(shape, read_y, read_w, write_x, b, e),
            shape.input_gradient_extent,
        ),
        "weight": (
            lambda b, e: depthwise.weight_gradient(shape, read_x, read_y, write_w, b, e),
            shape.weight_gradient_extent,
        ),
    }
    return {k: (nest.kernel([x, w, y], body), extent) for k, (body, extent) in rows.items()}


def eager(shape: Depthwise, layout: torch.memory_format) -> dict[str, Callable[[], object]]:
    """PyTorch's three calls."""
    stride, padding = [shape.rows.stride] * 2, [shape.rows.padding] * 2
    c = shape.channels
    x = torch.randn(shape.batch, c, shape.rows.size, shape.columns.size).to(memory_format=layout)
    w = torch.randn(c, 1, KERNEL, KERNEL)
    y = torch.conv2d(x, w, None, stride, padding, 1, c)

    def backward(mask: list[bool]) -> object:
        return torch.ops.aten.convolution_backward(
            y, x, w, None, stride, padding, [1, 1], False, [0, 0], c, mask
        )

    return {
        "forward": lambda: torch.conv2d(x, w, None, stride, padding, 1, c),
        "input": lambda: backward([True, False, False]),
        "weight": lambda: backward([False, True, False]),
    }


def best(run: Callable[[], object], seconds: float = 0.05) -> float:
    """Seconds of the fastest run within the given time."""
    run()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 5:
        begin = time.perf_counter()
        run()
        times.append(time.perf_counter() - begin)
    return min(times)


def measure(cache: KernelCache, batch: int, layer: tuple[int, int, int]) -> list[list[object]]:
    """Rows of the table for one layer."""
    shape = shape_of(batch, *layer)
    sizes = (layer[0] ** 2 * batch * layer[1], KERNEL**2 * layer[1],
             shape.rows.windows**2 * batch * layer[1])  # fmt: skip
    operands = [torch.randn(size) for size in sizes]
    flops, moved = 2 * sizes[2] * KERNEL**2, 4 * sum(sizes)
    contiguous = eager(shape, torch.contiguous_format)
    last = eager(shape, torch.channels_last)
    rows: list[list[object]] = []
    for name, (function, extent) in functions(shape).items():
        begin = time.perf_counter()
        blob = compile_blob(function, host_target(), "kernel")
        build_ms = (time.perf_counter() - begin) * 1e3
        path = cache.put(f"{name}{layer}{batch}".encode().hex(), blob)
        signature = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 2)
        kernel = signature(load(path))
        pointers = [operand.data_ptr() for operand in operands]
        ours = best(partial(kernel, *pointers, 0, extent))
        theirs, theirs_last = best(contiguous[name]), best(last[name])
        speeds = (flops / ours / 1e9, moved / ours / 1e9, flops / theirs / 1e9)
        ratios = (theirs / ours, theirs_last / ours)
        rows.append([batch, *layer, name, *speeds, *ratios, build_ms])
    return rows


def main() -> None:
    """Time every layer for the batches given."""
    torch.set_num_threads(1)
    cache = KernelCache(Path(tempfile.mkdtemp()))
    batches = [int(argument) for argument in sys.argv[1:]] or [8, 1]
    rows = [row for batch in batches for layer in LAYERS for row in measure(cache, batch, layer)]
    headers = ("N", "side", "C", "stride", "kernel", "GFLOP/s", "GB/s", "torch GFLOP/s",
               "x NCHW", "x NHWC", "build ms")  # fmt: skip
    print(tabulate(rows, headers=headers, floatfmt=".1f"))


if __name__ == "__main__":
    main()
