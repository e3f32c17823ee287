"""Any 64-bit Arm machine under Linux."""

from __future__ import annotations

from pockengine.targets.sources import ABI_64, CACHE_LINE
from pockengine.targets.target import Target

TARGET = Target(
    name="linux-arm64",
    description="Linux on 64-bit Arm (Armv8-A with Advanced SIMD)",
    llvm={
        "kind": "llvm",
        "mtriple": "aarch64-unknown-linux-gnu",
        "mcpu": "generic",
        "mattr": ["+neon"],
    },
    zig_triple="aarch64-linux-musl",
    emulator=("qemu-aarch64-static",),
    pointer_bits=64,
    alignment_bytes=64,
    sources={"pointer_bits": ABI_64, "alignment_bytes": CACHE_LINE},
)
