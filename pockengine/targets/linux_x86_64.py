"""Any 64-bit x86 machine with AVX2 and FMA (2013 and later) under Linux."""

from __future__ import annotations

from pockengine.targets.sources import ABI_64, CACHE_LINE
from pockengine.targets.target import Target

TARGET = Target(
    name="linux-x86-64",
    description="Linux on x86-64 with AVX2 and FMA",
    llvm={
        "kind": "llvm",
        "mtriple": "x86_64-unknown-linux-gnu",
        "mcpu": "haswell",
        "mattr": ["+avx2", "+fma", "+f16c", "+bmi", "+bmi2", "+popcnt"],
    },
    zig_triple="x86_64-linux-musl",
    emulator=(),
    pointer_bits=64,
    alignment_bytes=64,
    sources={"pointer_bits": ABI_64, "alignment_bytes": CACHE_LINE},
)
