"""Arduino MKR1000: a Cortex-M0+ at 48 MHz without floating-point hardware."""

from __future__ import annotations

from pockengine.targets.sources import ABI_32, DOUBLE_WORD, POET, SD_CARD
from pockengine.targets.target import Target

TARGET = Target(
    name="mkr1000",
    description="Arduino MKR1000 (Cortex-M0+, 48 MHz, software floats), no system, an SD card",
    llvm={
        "kind": "llvm",
        "mtriple": "thumbv6m-none-eabi",
        "mcpu": "cortex-m0plus",
        "mfloat-abi": "soft",
    },
    zig_triple="thumb-freestanding-eabi",
    zig_cpu="cortex_m0plus",
    pointer_bits=32,
    alignment_bytes=8,
    sram_bytes=32 << 10,
    threads=1,
    fma_flops_per_s=1.667e5,
    joules_per_flop=396e-9,
    page_in_joules=36.0e-6,
    page_in_joules_per_byte=71.48e-9,
    page_out_joules=37.3e-6,
    page_out_joules_per_byte=74.32e-9,
    storage_read_bytes_per_s=4.62e6,
    storage_write_bytes_per_s=4.44e6,
    sources={
        "pointer_bits": ABI_32,
        "alignment_bytes": DOUBLE_WORD,
        "sram_bytes": POET,
        "threads": "one core",
        "fma_flops_per_s": POET,
        "joules_per_flop": POET,
        "page_in_joules": SD_CARD,
        "page_in_joules_per_byte": SD_CARD,
        "page_out_joules": SD_CARD,
        "page_out_joules_per_byte": SD_CARD,
        "storage_read_bytes_per_s": SD_CARD,
        "storage_write_bytes_per_s": SD_CARD,
    },
)
