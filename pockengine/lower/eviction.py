"""The kernel cache stays within a size: what was not used for longest goes first."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from pockengine.errors import InputError

LIMIT_VARIABLE = "POCKENGINE_CACHE_BYTES"
"""Environment variable with the most bytes that the cache may have, such as ``500M`` or ``0``."""

DEFAULT_LIMIT_BYTES = 2 << 30
IN_USE_SECONDS = 600.0
"""What was used more recently stays in any case: a process may be about to map it."""

SWEEP_SECONDS = 300.0
"""How often a process that builds kernels looks whether there are too many."""

_SIZE = re.compile(r"(\d+)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def cache_limit() -> int:
    """The most bytes that the kernels on disk may have.

    Raises:
        InputError: the environment variable holds no size.
    """
    spec = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not spec:
        return DEFAULT_LIMIT_BYTES
    found = _SIZE.fullmatch(spec)
    if found is None:
        raise InputError(
            where=LIMIT_VARIABLE,
            found=repr(spec),
            needed="a size in bytes, or with K, M, G or T for powers of 1024",
            remedy="Unset it for 2G",
        )
    return int(found[1]) << _POWERS[found[2].upper()]


def touch(path: Path) -> None:
    """Note that an entry was used now; the time it was written stays."""
    with contextlib.suppress(OSError):  # a folder that others own, or an entry just evicted
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def occupied(status: os.stat_result) -> int:
    """Bytes that a file takes on its disk, which small ones take more of than they hold."""
    blocks: int | None = getattr(status, "st_blocks", None)
    return status.st_size if blocks is None else blocks * 512


def sweep(root: Path, limit_bytes: int) -> None:
    """``evict``, unless this was done a moment ago: to look at all entries takes its time."""
    mark = root / ".swept"
    with contextlib.suppress(OSError):
        if mark.stat().st_mtime > time.time() - SWEEP_SECONDS:
            return
    evict(root, limit_bytes)
    with contextlib.suppress(OSError):
        mark.touch()


def evict(root: Path, limit_bytes: int) -> int:
    """Delete the entries used longest ago until the rest fits; processes that map one keep it.

    Args:
        root: the cache's folder.
        limit_bytes: what the entries may have together.

    Returns:
        Bytes that were deleted.
    """
    entries = sorted(_entries(root))
    excess = sum(nbytes for _, nbytes, _ in entries) - limit_bytes
    young = time.time() - IN_USE_SECONDS
    deleted = 0
    for used, nbytes, path in entries:
        if deleted >= excess or used > young:
            break
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            deleted += nbytes
    return deleted


def _entries(root: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file was last used, how large it is, and where."""
    for path in root.glob("*/*"):
        with contextlib.suppress(OSError):  # another process evicts too
            status = path.stat()
            yield status.st_atime, occupied(status), path
