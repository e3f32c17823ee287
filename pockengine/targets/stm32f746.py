"""STM32F746: the microcontroller of the Tiny Training Engine, a Cortex-M7."""

from __future__ import annotations

from pockengine.targets.emulators import MPS2_AN500
from pockengine.targets.sources import ABI_32, DOUBLE_WORD, TTE
from pockengine.targets.target import Target

TARGET = Target(
    name="stm32f746",
    description="STM32F746 (Cortex-M7 with single-precision floating point), no system",
    llvm={
        "kind": "llvm",
        "mtriple": "thumbv7em-none-eabihf",
        "mcpu": "cortex-m7",
        "mattr": ["+fp-armv8d16sp", "-fp64"],
        "mfloat-abi": "hard",
    },
    zig_triple="thumb-freestanding-eabihf",
    zig_cpu="cortex_m7+fp_armv8d16sp",
    emulator=MPS2_AN500,
    pointer_bits=32,
    alignment_bytes=8,
    flash_bytes=1 << 20,
    sram_bytes=320 << 10,
    threads=1,
    sources={
        "pointer_bits": ABI_32,
        "alignment_bytes": DOUBLE_WORD,
        "flash_bytes": TTE,
        "sram_bytes": TTE,
        "threads": "one core",
    },
)
