"""Checkpoints: what was written is read, and everything else is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pockengine.checkpoint import FORMAT, fingerprint, read_checkpoint, write_checkpoint
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


def test_another_version(tmp_path: Path) -> None:
    """A file of an older format says which it is, and what to do."""
    path = tmp_path / "a.ckpt"
    save_file(_TENSORS, path, {"format": FORMAT, "version": "1", "sha256": "0"})
    with pytest.raises(CheckpointError, match=r"format version 1; version 2.*load_state_dict"):
        read_checkpoint(path)


def test_every_byte_counts(tmp_path: Path) -> None:
    """White space that JSON does not mind is under the checksum too."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, _TENSORS, _TOLD)
    data = path.read_bytes()
    spaces = [place for place, byte in enumerate(data) if byte == ord(" ")]
    assert spaces  # the padding of the header
    for place in spaces:
        path.write_bytes(data[:place] + b"\t" + data[place + 1 :])
        with pytest.raises(CheckpointError, match=r"truncated or no|checksum is wrong"):
            read_checkpoint(path)


def test_all_dtypes(tmp_path: Path) -> None:
    """Of any type, layout and size, and under any name, tensors come back; others are refused."""
    tensors = {
        "ü": torch.randn(3, 4).t(),
        "half": torch.randn(5).to(torch.float16),
        "bf": torch.randn(5).to(torch.bfloat16),
        "wave": torch.randn(3, dtype=torch.complex64),
        "flag": torch.tensor([True, False, True]),
        "none": torch.empty(0, 3),
        "long": torch.tensor(-1),
    }
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, tensors, {"sha256": "mine", "text": '"sha256":"' + "0" * 64})
    found, metadata = read_checkpoint(path)
    assert metadata["text"] == '"sha256":"' + "0" * 64
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    with pytest.raises(CheckpointError, match=r"wide has dtype torch\.complex128"):
        write_checkpoint(path, {"wide": torch.zeros(1, dtype=torch.complex128)}, {})
    with pytest.raises(CheckpointError, match="not Unicode"):
        write_checkpoint(path, {}, {"text": "\ud800"})


def test_fingerprint() -> None:
    """Values, names, shapes and dtypes count; order does not."""
    one = fingerprint(_TENSORS.items())
    assert one == fingerprint(reversed(_TENSORS.items()))
    changed = {**_TENSORS, "step": torch.tensor(4)}
    wider = {**_TENSORS, "a.weight": _TENSORS["a.weight"].reshape(3, 2)}
    assert len({one, fingerprint(changed.items()), fingerprint(wider.items())}) == 3
