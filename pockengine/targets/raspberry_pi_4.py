"""Raspberry Pi 4B: four Cortex-A72 cores under Linux, storage on an SD card.

POET's release gives the A72 2e9 FLOP/s in one place, which at its 24.93 nJ per FLOP would be 50 W;
its own no-cache profile gives 1.203e8, that is 3.0 W. The rate here is that of the profile.
"""

from __future__ import annotations

from pockengine.targets.sources import ABI_64, CACHE_LINE, POET, SD_CARD
from pockengine.targets.target import Target

TARGET = Target(
    name="raspberry-pi-4",
    description="Raspberry Pi 4B, 2 GB (Cortex-A72), under 64-bit Linux",
    llvm={
        "kind": "llvm",
        "mtriple": "aarch64-unknown-linux-gnu",
        "mcpu": "cortex-a72",
        "mattr": ["+neon"],
    },
    zig_triple="aarch64-linux-musl",
    zig_cpu="cortex_a72",
    emulator=("qemu-aarch64-static", "-cpu", "cortex-a72"),
    pointer_bits=64,
    alignment_bytes=64,
    dram_bytes=2 << 30,
    fma_flops_per_s=1.203e8,
    joules_per_flop=24.93e-9,
    page_in_joules=0.76e-6,
    page_in_joules_per_byte=3.297e-9,
    page_out_joules=2.8e-6,
    page_out_joules_per_byte=6.122e-9,
    storage_read_bytes_per_s=45.5e6,
    storage_write_bytes_per_s=24.5e6,
    sources={
        "pointer_bits": ABI_64,
        "alignment_bytes": CACHE_LINE,
        "dram_bytes": POET + ": 2 to 8 GB, of which the least",
        "fma_flops_per_s": POET + ", no-cache profile (its 2e9 elsewhere is a slip: 50 W)",
        "joules_per_flop": POET,
        "page_in_joules": SD_CARD,
        "page_in_joules_per_byte": SD_CARD,
        "page_out_joules": SD_CARD,
        "page_out_joules_per_byte": SD_CARD,
        "storage_read_bytes_per_s": SD_CARD,
        "storage_write_bytes_per_s": SD_CARD,
    },
)
