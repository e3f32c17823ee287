"""A Cortex-M7 as system emulation runs it: QEMU's machine mps2-an500."""

from __future__ import annotations

from pockengine.targets.emulators import MPS2_AN500
from pockengine.targets.sources import ABI_32, DOUBLE_WORD
from pockengine.targets.target import Target

_SCRIPT = "the linker script of `pockengine.runtime.replay`, csrc/cortex_m/mps2_an500.ld"

TARGET = Target(
    name="mps2-an500",
    description="Cortex-M7 in QEMU's mps2-an500, within 1 MB of flash and 256 KB of RAM",
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
    sram_bytes=256 << 10,
    threads=1,
    sources={
        "pointer_bits": ABI_32,
        "alignment_bytes": DOUBLE_WORD,
        "flash_bytes": _SCRIPT,
        "sram_bytes": _SCRIPT,
        "threads": "one core",
    },
)
