"""A 64-bit RISC-V machine with the vector extension under Linux."""

from __future__ import annotations

from pockengine.targets.sources import ABI_64, CACHE_LINE
from pockengine.targets.target import Target

TARGET = Target(
    name="riscv64",
    description="Linux on 64-bit RISC-V with vectors of 128 bits or more (RV64GCV)",
    llvm={
        "kind": "llvm",
        "mtriple": "riscv64-unknown-linux-gnu",
        "mcpu": "generic-rv64",
        "mabi": "lp64d",
        "mattr": ["+m", "+a", "+f", "+d", "+c", "+v"],
    },
    zig_triple="riscv64-linux-musl",
    zig_cpu="generic_rv64+m+a+f+d+c+v",
    emulator=("qemu-riscv64-static", "-cpu", "rv64,v=true,vlen=128"),
    pointer_bits=64,
    alignment_bytes=64,
    sources={"pointer_bits": ABI_64, "alignment_bytes": CACHE_LINE},
)
