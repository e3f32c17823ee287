"""The toy trainer replayed as a program: on this host, under emulation, without a system."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pockengine.errors import BuildError, PlanError
from pockengine.lower.link import build_executable
from pockengine.runtime.descriptor import Descriptor
from pockengine.runtime.emulate import parse_replay
from pockengine.runtime.engine import Engine
from pockengine.runtime.library import allocate
from pockengine.runtime.replay import build_cortex_m_replay, build_linux_replay, write_replay
from tests.runtime.toy import SIZE, batch, toy_descriptor

STEPS = 5
WEIGHTS = np.linspace(-1, 1, SIZE, dtype=np.float32)
CONSOLE = "-display none -chardev stdio,id=c -semihosting-config enable=on,target=native,chardev=c"
TOY = Path(__file__).parent / "csrc" / "toy.c"


def _write(folder: Path, descriptor: Descriptor | None = None) -> Path:
    const, _, state, _ = map(allocate, toy_descriptor().region_bytes)
    return write_replay(
        folder / "toy_replay.c",
        descriptor or toy_descriptor(),
        const=const,
        param=WEIGHTS.view(np.uint8),
        state=state,
        inputs_per_step=[batch(y=np.array([step], np.float32)) for step in range(STEPS)],
    )


def _expected(open_toy: Callable[..., Engine]) -> list[float]:
    with open_toy() as engine:
        engine.regions[1][:] = WEIGHTS.view(np.uint8)
        runs = [engine.run("step", batch(y=np.array([step], np.float32))) for step in range(STEPS)]
    return [float(run[0][0]) for run in runs]


def _output(*command: str | Path) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]}")
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def _toy_object(folder: Path, triple: str, *flags: str) -> Path:
    bare = ["-c", "-ffreestanding", *flags]
    return build_executable([TOY], [], triple=triple, output=folder / "toy.o", flags=bare)


def _m7_object(folder: Path) -> Path:
    return _toy_object(folder, "thumb-freestanding-eabihf", "-mcpu=cortex_m7+fp_armv8d16sp")


@pytest.mark.parametrize("machine", ["x86_64", "aarch64", "riscv64"])
def test_linux(tmp_path: Path, open_toy: Callable[..., Engine], machine: str) -> None:
    """A static program for each processor gives the engine's losses."""
    triple = f"{machine}-linux-musl"
    toy = _toy_object(tmp_path, triple)
    program = build_linux_replay(_write(tmp_path), [toy], triple=triple, output=tmp_path / "replay")
    emulator = () if machine == platform.machine() else (f"qemu-{machine}-static",)
    np.testing.assert_allclose(
        parse_replay(_output(*emulator, program)).losses, _expected(open_toy), rtol=1e-5
    )


def test_cortex_m7(tmp_path: Path, open_toy: Callable[..., Engine]) -> None:
    """Without an operating system, in 256 KB of RAM, the losses are the engine's."""
    output = tmp_path / "replay.elf"
    elf = build_cortex_m_replay(_write(tmp_path), [_m7_object(tmp_path)], output=output)
    machine = ("qemu-system-arm", "-M", "mps2-an500", *CONSOLE.split())
    replay = parse_replay(_output(*machine, "-kernel", elf))
    np.testing.assert_allclose(replay.losses, _expected(open_toy), rtol=1e-5)
    assert replay.stack_bytes is not None
    assert 100 < replay.stack_bytes < 2048


def test_too_big_for_the_board(tmp_path: Path) -> None:
    """An arena beyond the RAM is refused when the program is linked."""
    big = replace(toy_descriptor(), region_bytes=(0, 4000, 0, 250 << 10))
    output = tmp_path / "replay.elf"
    with pytest.raises(BuildError, match="exceed the RAM"):
        build_cortex_m_replay(_write(tmp_path, big), [_m7_object(tmp_path)], output=output)
    assert not output.exists()


def test_without_a_step(tmp_path: Path) -> None:
    """A trainer without the entry point step cannot be replayed."""
    predictor = replace(toy_descriptor(), entries=toy_descriptor().entries[1:])
    with pytest.raises(PlanError, match="entry points are predict; one named step"):
        _write(tmp_path, predictor)
