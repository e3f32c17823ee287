"""Checkpoints: what was written is read, and everything else is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pockengine.checkpoint import fingerprint, read_checkpoint, write_checkpoint
from pockengine.errors import CheckpointError

_TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(3)}
_TOLD = {"model": "m"}


def test_round_trip(tmp_path: Path) -> None:
    """Tensors and metadata come back; other programs read the file as plain safetensors."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, _TENSORS, _TOLD)
    tensors, metadata = read_checkpoint(path)
    assert metadata["model"] == "m"
    for name, tensor in _TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert torch.equal(load_file(path)[name], tensor)


@pytest.mark.parametrize("place", [9, 60, 200, -1, -30])
def test_flipped_bit(tmp_path: Path, place: int) -> None:
    """A damaged byte anywhere is found."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, _TENSORS, _TOLD)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="Nothing was changed"):
        read_checkpoint(path)


@pytest.mark.parametrize("length", [0, 5, 20, -1])
def test_truncated(tmp_path: Path, length: int) -> None:
    """A file that ends early is refused."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, _TENSORS, _TOLD)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="truncated or no safetensors"):
        read_checkpoint(path)


def test_foreign(tmp_path: Path) -> None:
    """Another program's safetensors, another file and a missing one are told apart."""
    path = tmp_path / "a"
    save_file(_TENSORS, path)
    with pytest.raises(CheckpointError, match="safetensors file of something else"):
        read_checkpoint(path)
    path.write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(CheckpointError, match="no safetensors file"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match="No such file"):
        read_checkpoint(tmp_path / "none")


def test_failed_write_keeps_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old file as it was, and nothing beside it."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, _TENSORS, _TOLD)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_checkpoint(path, {}, _TOLD)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_fingerprint() -> None:
    """Values, names, shapes and dtypes count; order does not."""
    one = fingerprint(_TENSORS)
    assert one == fingerprint(dict(reversed(_TENSORS.items())))
    changed = {**_TENSORS, "step": torch.tensor(4)}
    wider = {**_TENSORS, "a.weight": _TENSORS["a.weight"].reshape(3, 2)}
    assert len({one, fingerprint(changed), fingerprint(wider)}) == 3
