"""Kernels have the plain C interface, for every target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tvm import tirx

from pockengine.errors import BuildError
from pockengine.lower.blob import undefined_symbols
from pockengine.lower.codegen import compile_blob, compile_function
from pockengine.lower.features import host_target
from pockengine.lower.nest import (
    allocate,
    block,
    const,
    kernel,
    load,
    local,
    operand,
    ranges,
    serial,
    splat,
    store,
)
from tests.lower.harness import built

TARGETS = [
    {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"},
    {"kind": "llvm", "mtriple": "riscv64-linux-gnu", "mattr": ["+m", "+a", "+f", "+d", "+v"]},
    {"kind": "llvm", "mtriple": "wasm32-wasi", "mattr": ["+simd128"]},
    {
        "kind": "llvm",
        "mtriple": "thumbv7em-none-eabihf",
        "mcpu": "cortex-m7",
        "mfloat-abi": "hard",
    },
    {"kind": "llvm", "mtriple": "x86_64-w64-mingw32"},
    {"kind": "llvm", "mtriple": "arm64-apple-ios"},
]


def doubled() -> tirx.PrimFunc:
    """Set b[16 i + j] = 2 a[16 i + j] for i in begin .. end, 16 lanes at a time."""
    a, b = operand("a", 64), operand("b", 64)
    two = splat(tirx.FloatImm("float32", 2.0), 16)

    def body(i: tirx.Var) -> tirx.Stmt:
        return store(b, i * const(16), load(a, i * const(16), 16) * two, 16)

    return kernel([a, b], lambda begin, end: serial("i", end - begin, body, begin))


def filled_and_copied() -> tirx.PrimFunc:
    """Zero b, then copy a backwards by way of a scratch: LLVM makes memset and memcpy of it."""
    a, b, scratch = operand("a", 4096), operand("b", 8192), local("scratch", 4096)
    zero = tirx.FloatImm("float32", 0.0)
    backwards = const(8191)
    return kernel(
        [a, b],
        lambda begin, end: block(
            allocate(scratch),
            serial("i", end - begin, lambda i: store(b, i, zero), begin),
            serial("i", end - begin, lambda i: store(scratch, i, load(a, i)), begin),
            serial("i", end - begin, lambda i: store(b, backwards - i, load(scratch, i)), begin),
        ),
    )


def test_only_the_range_is_written(tmp_path: Path) -> None:
    """The range bounds the outer loop."""
    a, b = np.arange(64, dtype=np.float32), np.full(64, -1, np.float32)
    built(doubled(), tmp_path)(1, 3, a, b)
    expected = np.where((a >= 16) & (a < 48), 2 * a, -1)
    np.testing.assert_array_equal(b, expected)


def test_fill_and_copy_need_no_library(tmp_path: Path) -> None:
    """What LLVM makes calls of memset and memcpy from still runs with nothing linked."""
    func = filled_and_copied()
    compiled = compile_function(func, host_target(), "k")
    assert undefined_symbols(compiled) == {"memset", "memcpy"}
    a, b = np.arange(4096, dtype=np.float32), np.full(8192, -1, np.float32)
    built(func, tmp_path)(1, 4095, a, b)
    expected = np.concatenate([np.zeros(4096, np.float32), a[::-1]])
    expected[[0, 4095, 4096, 8191]] = -1
    np.testing.assert_array_equal(b, expected)


def test_nests_behind_each_other_share_one_range(tmp_path: Path) -> None:
    """`ranges` gives each part its own iterations, for any split."""
    out = operand("out", 7)

    def part(value: int, offset: int) -> tuple[int, object]:
        def emit(begin: object, end: object) -> object:
            number = tirx.FloatImm("float32", value)
            extent = tirx.Sub(end, begin)
            return serial("i", extent, lambda i: store(out, i + const(offset), number), begin)

        return (3, emit) if value == 1 else (4, emit)

    func = kernel([out], lambda begin, end: ranges([part(1, 0), part(2, 3)], begin, end))
    call, values = built(func, tmp_path), np.zeros(7, np.float32)
    for begin, end in ((0, 2), (2, 4), (5, 7)):
        call(begin, end, values)
    np.testing.assert_array_equal(values, [1, 1, 1, 2, 0, 2, 2])


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["mtriple"])
def test_other_targets_give_objects(target: dict[str, object]) -> None:
    """The same function compiles for other processors and object formats."""
    assert b"doubled_kernel" in compile_function(doubled(), target, "doubled_kernel")


def test_same_input_same_bytes() -> None:
    """Code does not depend on addresses or on what was compiled before."""
    first = compile_blob(doubled(), host_target(), "k")
    assert compile_blob(doubled(), host_target(), "k") == first


def test_unknown_target_is_a_build_error() -> None:
    """TVM's complaint arrives as one line that names the kernel and the target."""
    with pytest.raises(BuildError, match=r"^kernel k: .*toaster"):
        compile_function(doubled(), {"kind": "llvm", "mtriple": "toaster-none-elf"}, "k")
