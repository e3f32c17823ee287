"""An exported folder builds into a program by the command that its README gives."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import pockengine as pe
from pockengine.lower.link import build_executable
from pockengine.runtime.library import CSRC
from tests.machines.compare import mlp

pytestmark = [pytest.mark.emulator, pytest.mark.slow]
BARE = ("-ffreestanding", "-fno-builtin", "-nostdlib", "-static", f"-I{CSRC / 'bare'}")
SOURCES = ("main.c", "trainer.c", "data.S", "runtime/core.c", "runtime/step.c")
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")


def _exported(folder: Path) -> pe.Trainer:
    batch = (torch.zeros(4, 32), torch.zeros(4, dtype=torch.long))
    trainer = pe.compile(
        mlp(), batch, loss="cross_entropy", optimizer=pe.SGD(momentum=0.9), target="linux-arm64"
    )
    trainer.export(folder)
    return trainer


def test_the_example_runs(tmp_path: Path) -> None:
    """The example steps five times, without a C library, and ends well."""
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("there is no qemu-aarch64-static")
    _exported(tmp_path)
    program = build_executable(
        [*(tmp_path / name for name in SOURCES), CSRC / "linux/start.c", CSRC / "bare/memory.c"],
        [tmp_path / "libkernels.a"],
        triple="aarch64-linux-musl",
        output=tmp_path / "example",
        flags=(*BARE, *STRICT, f"-I{tmp_path}", f"-I{tmp_path / 'runtime'}"),
    )
    ran = subprocess.run(["qemu-aarch64-static", program], check=False, timeout=60)
    assert ran.returncode == 0


def test_the_images_are_the_regions(tmp_path: Path) -> None:
    """Files and sizes are those of the plan; the README names the build command and the sizes."""
    trainer = _exported(tmp_path)
    sizes = [(tmp_path / f"{name}.bin").stat().st_size for name in ("const", "param", "state")]
    assert sizes == list(trainer.plan.region_bytes[:3])
    readme = (tmp_path / "README.md").read_text()
    assert "zig cc -target aarch64-linux-musl" in readme
    assert f"| arena | {trainer.plan.arena_bytes} |" in readme
    tables = (tmp_path / "trainer_tables.h").read_text()
    assert " *   input 0: input, 128 x f32\n *   input 1: target, 4 x i64\n" in tables
