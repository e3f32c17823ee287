"""What cannot be emulated says so, and what was printed is read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pockengine.errors import InputError, TrainError
from pockengine.runtime.emulate import Replay, emulate, parse_replay
from pockengine.runtime.image import Image
from pockengine.runtime.library import allocate
from pockengine.targets import Target, get_target
from tests.runtime.toy import toy_descriptor


def _image(target: Target) -> Image:
    const, param, state, _ = map(allocate, toy_descriptor().region_bytes)
    return Image(
        target=target,
        descriptor=toy_descriptor(),
        objects=(),
        const=const,
        param=param,
        state=state,
    )


def test_text_is_read_back() -> None:
    """Losses are the bits of float32 values; the stack's bytes are not given by all machines."""
    text = "loss 0x3f800000\nloss 0xc0000000\n"
    assert parse_replay(text) == Replay((1.0, -2.0), None)
    assert parse_replay(text + "stack 0x00000400\n") == Replay((1.0, -2.0), 1024)


def test_no_emulator(tmp_path: Path) -> None:
    """A machine without an emulator is refused ahead of all work."""
    with pytest.raises(InputError, match="emulate for mkr1000: this target has no emulator"):
        emulate(_image(get_target("mkr1000")), [], tmp_path)


def test_emulator_not_installed(tmp_path: Path) -> None:
    """A missing emulator is named, and the package that has it."""
    target = replace(get_target("linux-arm64"), emulator=("qemu-of-nobody",))
    with pytest.raises(TrainError, match=r"there is no program qemu-of-nobody.*qemu-user-static"):
        emulate(_image(target), [], tmp_path)
