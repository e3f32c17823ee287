"""A model's values read from safetensors files one tensor at a time: never all at once in memory.

Source: the format, https://huggingface.co/docs/safetensors (a length, a JSON header, the bytes).
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pockengine.checks import is_whole, kind_of, some
from pockengine.errors import InputError

Paths = str | Path | Sequence[str | Path]
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""PyTorch's types by the words of the format."""
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor lies: its file's mapping, the place in it, and its type."""

    mapping: mmap.mmap
    start: int
    nbytes: int
    dtype: torch.dtype
    shape: tuple[int, ...]

    def tensor(self) -> Tensor:
        if self.nbytes == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        count = self.nbytes // self.dtype.itemsize
        flat = torch.frombuffer(self.mapping, dtype=self.dtype, count=count, offset=self.start)
        return flat.reshape(self.shape)


class StoredWeights(Mapping[str, Tensor]):
    """The tensors of a model by canonical name, in the dtype of the file; others as they are.

    A tensor's bytes come into memory when they are read, and leave it with ``release``.

    Args:
        paths: one file, or the several that a large model is cut into.
        tensors: the model's own, by canonical name; on the meta device where only the file has
            values.
        aliases: canonical name of each further name of a tied tensor.

    Raises:
        InputError: a file that is not there or none of safetensors, a tensor of another shape, or
            one that neither the file nor the model has values of.
    """

    def __init__(
        self, paths: Paths, tensors: Mapping[str, Tensor], aliases: Mapping[str, str]
    ) -> None:
        listed = _listed(paths)
        self._where = ", ".join(map(str, listed))
        found: dict[str, _Entry] = {}
        for path in listed:
            found.update(_entries(Path(path)))
        self._aliases = aliases
        self._entries = {self._canonical(name): entry for name, entry in found.items()}
        self._tensors = tensors
        self._check()

    def _canonical(self, name: str) -> str:
        return self._aliases.get(name, name)

    def _entry(self, name: str) -> _Entry | None:
        return self._entries.get(self._canonical(name))

    def _check(self) -> None:
        missing = [n for n, t in self._tensors.items() if t.is_meta and self._entry(n) is None]
        if missing:
            raise self._unfit(f"no values of {some(missing)}", "Save all of the model's tensors")
        for name, tensor in self._tensors.items():
            entry = self._entry(name)
            if entry is not None and entry.shape != tuple(tensor.shape):
                shapes = f"{entry.shape}, not {tuple(tensor.shape)}"
                raise self._unfit(f"{name} has shape {shapes}", "Give the file of this model")

    def _unfit(self, found: str, remedy: str) -> InputError:
        return InputError(
            where=f"compile(weights={self._where!r})",
            found=found,
            needed="the tensors of model.state_dict()",
            remedy=remedy,
        )

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entry(name) if name in self._tensors else None
        return self._tensors[name] if entry is None else entry.tensor()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def release(self, name: str) -> None:
        """Drop a tensor's pages from memory; reading it again fetches them again."""
        entry = self._entry(name)
        if entry is not None and entry.nbytes and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            start = entry.start - entry.start % mmap.PAGESIZE
            entry.mapping.madvise(mmap.MADV_DONTNEED, start, entry.start + entry.nbytes - start)


def _entries(path: Path) -> dict[str, _Entry]:
    try:
        with path.open("rb") as file:
            mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        length = int.from_bytes(mapping[:8], "little")
        header: dict[str, Any] = json.loads(mapping[8 : 8 + length])
        first = 8 + length
        return {
            name: _entry(mapping, first, row)
            for name, row in header.items()
            if name != "__metadata__"
        }
    except OSError as error:
        raise _no_file(path, f"it cannot be read ({error.strerror})") from error
    except _UNREADABLE as error:
        raise _no_file(path, "it is truncated or no safetensors file") from error


def _no_file(path: Path, found: str) -> InputError:
    return InputError(
        where=f"compile(weights={str(path)!r})",
        found=found,
        needed="a safetensors file",
        remedy="Write one with safetensors.torch.save_file(model.state_dict(), path)",
    )


def _listed(paths: object) -> list[str | Path]:
    listed = list(paths) if isinstance(paths, (list, tuple)) else [paths]
    found = [each for each in listed if isinstance(each, (str, Path))]
    if not found or len(found) < len(listed):
        raise InputError(
            where="compile(weights=...)",
            found=kind_of(paths) + " of something else" * isinstance(paths, list),
            needed="the path of a safetensors file, or a list of them",
            remedy="Write one with safetensors.torch.save_file(state_dict, path)",
        )
    return found


def _entry(mapping: mmap.mmap, first: int, row: Mapping[str, Any]) -> _Entry:
    (start, stop), dtype, shape = row["data_offsets"], DTYPES[row["dtype"]], tuple(row["shape"])
    if not all(is_whole(number) and number >= 0 for number in (start, stop, *shape)):
        raise ValueError(f"no whole numbers in {row}")
    if first + stop > len(mapping):
        raise ValueError("the file ends early")
    if stop - start != prod(shape) * dtype.itemsize:
        raise ValueError(f"{stop - start} bytes for {shape} of {row['dtype']}")
    return _Entry(mapping, first + start, stop - start, dtype, shape)
