"""Checkpoint files: safetensors with a checksum over every byte, replaced whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from torch import Tensor

from pockengine.disk import SYSTEM, Disk, replace_file
from pockengine.errors import CheckpointError
from pockengine.weights import DTYPES

FORMAT = "pockengine.checkpoint"
VERSION = "2"

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8
_NO_SUM = "0" * 64
_SUM = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_WORDS = {dtype: word for word, dtype in DTYPES.items()}
_UNPARSABLE = (
    *(SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
    *(OverflowError, RecursionError, struct.error),
)


def write_checkpoint(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    disk: Disk = SYSTEM,
) -> None:
    """Write a file that other programs read as plain safetensors.

    It is written beside its place, synced, renamed, and its folder synced: a reader, or a loss of
    power, sees the old file or the new one; once this returns, the new one. A second writer of the
    same path waits, at most half a minute; readers never do.

    Args:
        path: the file, or a link to it.
        tensors: by name. They are read twice and must not change meanwhile.
        metadata: what it belongs to; ``format``, ``version`` and ``sha256`` are added.
        disk: the file system.

    Raises:
        CheckpointError: the file cannot be written, or what is to be written has no place in it.
    """
    header = _header(path, tensors, {**metadata, "format": FORMAT, "version": VERSION})
    digest = hashlib.sha256(header)
    for data in _contents(tensors):
        digest.update(data)
    # the first occurrence is the header's own: inside of strings, quotes are escaped
    signed = _SUM.sub(b'"sha256":"%s"' % digest.hexdigest().encode(), header, count=1)
    try:
        replace_file(Path(path).resolve(), _parts(signed, tensors), disk)
    except OSError as error:
        raise CheckpointError(
            where=str(path),
            found=f"it cannot be written ({error.strerror or error})",
            needed="a folder that can be written, has room, and no other writer of this file",
            remedy="Choose another place, or free space; a file that was there before is whole",
        ) from error


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a file that ``write_checkpoint`` wrote.

    Raises:
        CheckpointError: it cannot be read, is truncated or corrupt, or is something else.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise unusable(path, f"it cannot be read ({error.strerror})") from error
    try:
        metadata, first = _metadata(data)
        tensors = parse(data)
    except _UNPARSABLE as error:
        told = f" ({error})" if isinstance(error, SafetensorError) else ""
        raise unusable(path, f"it is truncated or no safetensors file{told}") from error
    if metadata.get("format") != FORMAT:
        raise unusable(path, "it is a safetensors file of something else")
    if metadata.get("version") != VERSION:
        raise _other_version(path, metadata.get("version"))
    if not _is_whole(data, first):
        raise unusable(path, "it is corrupt: its checksum is wrong")
    del metadata["sha256"]
    return tensors, metadata


def fingerprint(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of named tensors, whatever their order; one after the other is looked at."""
    rows = sorted(
        f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0{hashlib.sha256(_bytes(tensor)).hexdigest()}"
        for name, tensor in tensors
    )
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def unusable(path: str | Path, found: str) -> CheckpointError:
    """The error for a file that no trainer can use."""
    return CheckpointError(
        where=str(path),
        found=found,
        needed="a whole checkpoint that Trainer.save wrote",
        remedy="Nothing was changed; use another file",
    )


def _header(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Length, JSON and padding; the place of the checksum holds zeros."""
    rows: dict[str, object] = {"__metadata__": {**metadata, "sha256": _NO_SUM}}
    at = 0
    for name in _order(tensors):
        tensor = tensors[name]
        if tensor.dtype not in _WORDS:
            raise _unwritable(path, f"{name} has dtype {tensor.dtype}")
        end = at + tensor.nbytes
        shape = list(tensor.shape)
        rows[name] = {"dtype": _WORDS[tensor.dtype], "shape": shape, "data_offsets": [at, end]}
        at = end
    try:
        text = json.dumps(rows, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise _unwritable(path, f"a text in it is not Unicode ({error.reason})") from error
    text += b" " * (-len(text) % _ALIGNMENT)
    return _LENGTH.pack(len(text)) + text


def _order(tensors: Mapping[str, Tensor]) -> list[str]:
    """Wide elements first, so that each tensor is aligned to its own."""
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def _contents(tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    return (_bytes(tensors[name]) for name in _order(tensors))


def _parts(header: bytes, tensors: Mapping[str, Tensor]) -> Iterator[memoryview]:
    yield memoryview(header)
    yield from _contents(tensors)


def _bytes(tensor: Tensor) -> memoryview:
    """The elements in row-major order."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def _metadata(data: bytes) -> tuple[dict[str, str], int]:
    """The strings that a safetensors file carries besides its tensors, and where those begin."""
    (length,) = _LENGTH.unpack_from(data)
    first = _LENGTH.size + length
    header = json.loads(data[_LENGTH.size : first])
    strings = header.get("__metadata__", {})
    return {str(key): str(value) for key, value in strings.items()}, first


def _is_whole(data: bytes, first: int) -> bool:
    """Whether all bytes are those that were written."""
    header = data[:first]
    found = _SUM.search(header)
    if found is None:
        return False
    unsigned = header[: found.start(1)] + _NO_SUM.encode() + header[found.end(1) :]
    digest = hashlib.sha256(unsigned)
    digest.update(memoryview(data)[first:])
    return digest.hexdigest().encode() == found[1]


def _other_version(path: str | Path, version: str | None) -> CheckpointError:
    return CheckpointError(
        where=str(path),
        found=f"it has format version {version}",
        needed=f"version {VERSION}, which this PockEngine reads and writes",
        remedy="Nothing was changed; load it with the PockEngine that wrote it and export "
        "trainer.state_dict(), which load_state_dict takes here",
    )


def _unwritable(path: str | Path, found: str) -> CheckpointError:
    return CheckpointError(
        where=str(path),
        found=found,
        needed="tensors of a dtype of safetensors, and Unicode texts",
        remedy="Nothing was written; convert it",
    )
