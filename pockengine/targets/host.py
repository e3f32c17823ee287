"""The machine that compiles, running what it compiled."""

from __future__ import annotations

from pockengine.targets.sources import ABI_64, CACHE_LINE
from pockengine.targets.target import Target

_MEASURED = "measured by `pockengine bench` on one core of a 4th generation Xeon (AVX-512)"

TARGET = Target(
    name="host",
    description="this machine; rates are those of an AVX-512 server core",
    llvm=None,
    zig_triple=None,
    pointer_bits=64,
    alignment_bytes=64,
    fma_flops_per_s=130e9,
    memory_bytes_per_s=12e9,
    sources={
        "pointer_bits": ABI_64,
        "alignment_bytes": CACHE_LINE,
        "fma_flops_per_s": _MEASURED,
        "memory_bytes_per_s": _MEASURED,
    },
)
