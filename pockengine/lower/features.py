"""The processor this process runs on, as a TVM target with every feature spelled out.

The name ``native`` never appears: the target is part of every kernel's key, and a cache that is
copied to a lesser machine must miss there.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from pockengine.errors import BuildError

_X86_FEATURES = {
    # name in /proc/cpuinfo -> LLVM feature
    "pni": "sse3",
    "ssse3": "ssse3",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "popcnt": "popcnt",
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "abm": "lzcnt",
    "movbe": "movbe",
    "avx512f": "avx512f",
    "avx512cd": "avx512cd",
    "avx512bw": "avx512bw",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx_vnni": "avxvnni",
}
_ARM_FEATURES = {
    "asimd": "neon",
    "asimdhp": "fullfp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
}
_X86_MODELS = (
    # the first whose features are all there; it sets the scheduling model
    ("sapphirerapids", {"avx512_fp16", "avx512_bf16"}),
    ("icelake-server", {"avx512_vnni"}),
    ("skylake-avx512", {"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    ("haswell", {"avx2", "fma"}),
    ("x86-64", set[str]()),
)


def host_target(cpuinfo: str | None = None, machine: str | None = None) -> dict[str, Any]:
    """TVM target of a Linux processor: kind, mtriple, mcpu and the full feature list.

    Args:
        cpuinfo: text of ``/proc/cpuinfo``; None reads this machine's.
        machine: as ``platform.machine()``; None asks it.

    Raises:
        BuildError: a processor family without a row here.
    """
    machine = platform.machine() if machine is None else machine
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    if machine in ("x86_64", "AMD64"):
        return _x86_target(_flags(text, "flags"))
    if machine in ("aarch64", "arm64"):
        return _arm_target(_flags(text, "Features"))
    raise BuildError(
        where="target host",
        found=f"processor family {machine!r}",
        needed="x86_64 or aarch64",
        remedy="name a target of pockengine.targets and run the exported trainer",
    )


def _x86_target(flags: frozenset[str]) -> dict[str, Any]:
    model = next(name for name, needed in _X86_MODELS if needed <= flags)
    features = [f"{'+' if flag in flags else '-'}{llvm}" for flag, llvm in _X86_FEATURES.items()]
    return {
        "kind": "llvm",
        "mtriple": "x86_64-unknown-linux-gnu",
        "mcpu": model,
        "mattr": [*features, "-prefer-256-bit"],
    }


def _arm_target(flags: frozenset[str]) -> dict[str, Any]:
    features = [f"+{llvm}" for flag, llvm in _ARM_FEATURES.items() if flag in flags]
    return {
        "kind": "llvm",
        "mtriple": "aarch64-unknown-linux-gnu",
        "mcpu": "generic",
        "mattr": features,
    }


def _flags(text: str, field: str) -> frozenset[str]:
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return frozenset(value.split())
    return frozenset()
