"""nRF52840: a Cortex-M4F at 64 MHz, of POET's devices the one where paging and recomputing mix."""

from __future__ import annotations

from pockengine.targets.emulators import MPS2_AN386
from pockengine.targets.sources import ABI_32, DOUBLE_WORD, POET, SD_CARD
from pockengine.targets.target import Target

TARGET = Target(
    name="nrf52840",
    description="nRF52840 (Cortex-M4F, 64 MHz), no system, an SD card",
    llvm={
        "kind": "llvm",
        "mtriple": "thumbv7em-none-eabihf",
        "mcpu": "cortex-m4",
        "mattr": ["+vfp4d16sp", "-fp64"],
        "mfloat-abi": "hard",
    },
    zig_triple="thumb-freestanding-eabihf",
    zig_cpu="cortex_m4+vfp4d16sp",
    emulator=MPS2_AN386,
    pointer_bits=32,
    alignment_bytes=8,
    sram_bytes=256 << 10,
    threads=1,
    fma_flops_per_s=6.37e6,
    joules_per_flop=1.724e-9,
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
