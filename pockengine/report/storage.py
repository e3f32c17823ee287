"""What lies in the cache folder, and how to empty it."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from pockengine.errors import InputError
from pockengine.lower.eviction import cache_limit, occupied
from pockengine.lower.link import cache_dir

PARTS = ("kernels", "runtime", "payloads", "zig")
"""Folders of the cache that have a meaning for users; all others count as ``other``."""

_TOLD = {
    "kernels": "compiled kernels, built anew when needed",
    "runtime": "the C runtime",
    "payloads": "pretrained weights and data sets, fetched anew when needed",
    "zig": "the C compiler's own files",
    "other": "further small libraries",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One part of the cache.

    Args:
        name: one of ``PARTS`` or ``other``.
        description: in words.
        files: how many.
        nbytes: that they take on the disk together.
        limit_bytes: what it is kept within; None for what does not grow by itself.
    """

    name: str
    description: str
    files: int
    nbytes: int
    limit_bytes: int | None


def stored() -> list[Stored]:
    """What the cache holds, by part.

    Raises:
        InputError: the environment sets no proper limit.
    """
    root = cache_dir()
    found = []
    for name, description in _TOLD.items():
        sizes = [size for folder in _folders(root, name) for size in _sizes(folder)]
        limit = cache_limit() if name == "kernels" else None
        found.append(
            Stored(
                name=name,
                description=description,
                files=len(sizes),
                nbytes=sum(sizes),
                limit_bytes=limit,
            )
        )
    return found


def clear(names: tuple[str, ...]) -> int:
    """Delete parts of the cache; trainers that run keep what they use.

    Args:
        names: of parts.

    Returns:
        Bytes that were deleted.

    Raises:
        InputError: something cannot be deleted.
    """
    before = {part.name: part.nbytes for part in stored()}
    for folder in (folder for name in names for folder in _folders(cache_dir(), name)):
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise InputError(
                where=f"cache {folder}",
                found=f"cannot be deleted ({error.strerror})",
                needed="a folder of the user's own",
                remedy="Delete it as its owner, or set XDG_CACHE_HOME to another one",
            ) from error
    after = {part.name: part.nbytes for part in stored()}
    return sum(before[name] - after[name] for name in names)


def _folders(root: Path, name: str) -> list[Path]:
    if name in PARTS:
        return [root / name] if (root / name).is_dir() else []
    return [path for path in root.glob("*") if path.is_dir() and path.name not in PARTS]


def _sizes(folder: Path) -> list[int]:
    sizes = []
    for parent, _, names in os.walk(folder):  # which passes over a folder that is deleted meanwhile
        for name in names:
            with contextlib.suppress(OSError):  # deleted meanwhile
                found = Path(parent, name).lstat()
                if stat.S_ISREG(found.st_mode):
                    sizes.append(occupied(found))
    return sizes
