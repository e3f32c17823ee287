"""Checkpoints: safetensors under canonical names, with a checksum, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from safetensors.torch import save as serialize
from torch import Tensor

from pockengine.errors import CheckpointError

_FORMAT = "pockengine.checkpoint"
_VERSION = "1"
_LENGTH = struct.Struct("<Q")


def write_checkpoint(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write a file that other programs read as plain safetensors.

    It is written beside its place, flushed to the disk and renamed: a reader, or a crash, sees the
    old file or the new one.

    Args:
        path: the file.
        tensors: by canonical name, dense.
        metadata: what it belongs to.

    Raises:
        CheckpointError: the file cannot be written.
    """
    told = {**metadata, "format": _FORMAT, "version": _VERSION}
    told["sha256"] = _digest(tensors, told)
    data = serialize(dict(tensors), told)
    try:
        _replace(Path(path), data)
    except OSError as error:
        raise CheckpointError(
            where=str(path),
            found=f"it cannot be written ({error.strerror})",
            needed="a folder with enough room",
            remedy="Choose another place; a file that was there before is unchanged",
        ) from error


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file that ``write_checkpoint`` wrote.

    Raises:
        CheckpointError: it cannot be read, is truncated or corrupt, or is something else.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise _unusable(path, f"it cannot be read ({error.strerror})") from error
    try:
        metadata = _metadata(data)
        tensors = parse(data)
    except (SafetensorError, ValueError, KeyError, TypeError, struct.error) as error:
        raise _unusable(path, f"it is truncated or no safetensors file ({error})") from error
    if metadata.get("format") != _FORMAT:
        raise _unusable(path, "it is a safetensors file of something else")
    if metadata.get("version") != _VERSION:
        raise _unusable(path, f"it has version {metadata.get('version')}")
    if metadata.pop("sha256", "") != _digest(tensors, metadata):
        raise _unusable(path, "it is corrupt: its checksum is wrong")
    return tensors, metadata


def _metadata(data: bytes) -> dict[str, str]:
    """The strings that a safetensors file carries besides its tensors."""
    (length,) = _LENGTH.unpack_from(data)
    header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    return {str(key): str(value) for key, value in header.get("__metadata__", {}).items()}


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 over names, types, shapes and bytes."""
    state = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    state.update(fingerprint(tensors).encode())
    return state.hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of named tensors, whatever their order."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        state.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _replace(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unusable(path: str | Path, found: str) -> CheckpointError:
    return CheckpointError(
        where=str(path),
        found=found,
        needed="a whole checkpoint of this trainer",
        remedy="Nothing was changed; use another file",
    )
