"""Objects become position-independent code or are refused."""

from __future__ import annotations

import struct

import pytest
from tvm import tirx

from pockengine.errors import BuildError
from pockengine.lower.blob import LOAD_OFFSET, relocate, undefined_symbols
from pockengine.lower.codegen import compile_function
from pockengine.lower.nest import const, kernel, load, operand, serial, splat, store

ARM = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}
X86 = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}


def scaled(value: float) -> tirx.PrimFunc:
    """a[4 i + j] *= value; the value is a constant in the object's read-only data."""
    a = operand("a", 64)
    factor = splat(tirx.FloatImm("float32", value), 4)

    def body(i: tirx.Var) -> tirx.Stmt:
        return store(a, i * const(4), load(a, i * const(4), 4) * factor, 4)

    return kernel([a], lambda begin, end: serial("i", end - begin, body, begin))


def test_constants_travel_with_x86_code() -> None:
    """A constant is part of the blob, and the code's displacement leads to it."""
    blob = relocate(compile_function(scaled(1.2345), X86, "k"), "k")
    assert struct.pack("<f", 1.2345) in blob


def test_arm_page_references_count_from_the_load_offset() -> None:
    """The adrp and ldr of an aarch64 blob give the constant's place in its mapped file."""
    at = operand("a", 64)
    values = [0.1 * i for i in range(4)]
    vector = tirx.Shuffle(
        [tirx.FloatImm("float32", v) for v in values], [const(i) for i in range(4)]
    )
    func = kernel(
        [at], lambda begin, end: serial("i", end, lambda i: store(at, i, vector, 4), begin)
    )
    blob = relocate(compile_function(func, ARM, "k"), "k")
    place = blob.index(struct.pack("<4f", *values)) + LOAD_OFFSET
    words = struct.unpack(f"<{len(blob) // 4}I", blob[: len(blob) // 4 * 4])
    pages = [
        (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3 for word in words if word >> 24 & 0x9F == 0x90
    ]
    offsets = [(word >> 10 & 0xFFF) * 16 for word in words if word >> 22 == 0b0011110111]
    assert pages == [0]
    assert place in offsets


def test_undefined_symbol_is_refused() -> None:
    """A kernel that would call the C library is an error that names the function."""
    a = operand("a", 4)
    power = tirx.call_pure_extern("float32", "powf", load(a, const(0)), load(a, const(1)))
    func = kernel([a], lambda begin, _: store(a, begin, power))
    compiled = compile_function(func, X86, "k")
    assert undefined_symbols(compiled) == {"powf"}
    with pytest.raises(BuildError, match=r"kernel k: a call of powf; a kernel that calls nothing"):
        relocate(compiled, "k")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (b"", "no little-endian ELF64 object"),
        (b"\x7fELF\x01" + bytes(64), "no little-endian ELF64 object"),
        (b"\x7fELF\x02\x01" + bytes(12) + b"\xf3" + bytes(64), "ELF machine 243"),
    ],
)
def test_foreign_objects_are_refused(image: bytes, message: str) -> None:
    """Other formats and machines are named, not misread."""
    with pytest.raises(BuildError, match=message):
        relocate(image, "k")


def test_wrong_name_is_refused() -> None:
    """The entry must be the function that was asked for."""
    with pytest.raises(BuildError, match="not at the start of its section"):
        relocate(compile_function(scaled(2.0), X86, "k"), "other")
