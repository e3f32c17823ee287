"""Steps a trainer of another machine through batches under that machine's emulator."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pockengine.errors import InputError, TrainError
from pockengine.runtime.image import Image, Inputs
from pockengine.runtime.replay import build_replay, write_replay

_PATIENCE_S = 1200


@dataclass(frozen=True, slots=True)
class Replay:
    """What a machine reported.

    Args:
        losses: of each step.
        stack_bytes: the most that the stack held; None where the machine does not tell.
    """

    losses: tuple[float, ...]
    stack_bytes: int | None


def emulate(image: Image, inputs_per_step: Inputs, folder: Path | None = None) -> Replay:
    """Link a trainer and its batches into one program, and run it.

    Args:
        image: of a target that has an emulator.
        inputs_per_step: for each step the inputs of ``step``.
        folder: where the program is built; by default one that is deleted again.

    Raises:
        InputError: a batch does not fit, or the target has no emulator.
        BuildError: the program does not link or does not fit the machine.
        TrainError: the emulator is missing, or the program failed in it.
    """
    command = _command(image)
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="pockengine-") as temporary:
            return emulate(image, inputs_per_step, Path(temporary))
    source = write_replay(
        folder / "replay_data.c",
        image.descriptor,
        const=image.const,
        param=image.param,
        state=image.state,
        inputs_per_step=inputs_per_step,
    )
    objects = image.write_objects(folder)
    program = build_replay(source, objects, image.target, folder / "replay.elf")
    return parse_replay(_run(image.target.name, [*command, str(program)]))


def parse_replay(text: str) -> Replay:
    """What `csrc/replay.c` and the start-up code printed, one ``<word> 0x<hex>`` a line."""
    found: dict[str, list[str]] = {"loss": [], "stack": []}
    for line in text.split("\n")[:-1]:
        word, _, digits = line.partition(" 0x")
        found[word].append(digits)
    losses = tuple(struct.unpack(">f", bytes.fromhex(digits))[0] for digits in found["loss"])
    return Replay(losses, int(found["stack"][0], 16) if found["stack"] else None)


def _command(image: Image) -> tuple[str, ...]:
    """The emulator, which exists."""
    target = image.target
    if target.emulator is None:
        raise InputError(
            where=f"emulate for {target.name}",
            found="this target has no emulator",
            needed="a target that something here can run",
            remedy="Export the trainer and run it on its machine",
        )
    if target.emulator and shutil.which(target.emulator[0]) is None:
        raise TrainError(
            where=f"emulate for {target.name}",
            found=f"there is no program {target.emulator[0]}",
            needed="the emulator on the PATH",
            remedy="Install QEMU (Debian: qemu-user-static, qemu-system-arm)",
        )
    return target.emulator


def _run(name: str, command: list[str]) -> str:
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
        failed = ran.returncode != 0
        told = f"it ended with {ran.returncode}: {(ran.stdout + ran.stderr).strip()[-500:]}"
    except subprocess.TimeoutExpired:
        failed, told = True, f"it did not end within {_PATIENCE_S} seconds"
    if failed:
        raise TrainError(
            where=f"emulating {name}",
            found=told,
            needed="a program that ends well",
            remedy=f"The command was: {' '.join(command)}",
        )
    return ran.stdout
