"""Files that are replaced whole: synced, renamed into place, and locked against a second writer."""

from __future__ import annotations

import errno
import os
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Protocol

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_POLL_S = 0.02
_TOKEN_BYTES = 4
_ANY_TOKEN = "[0-9a-f]" * (2 * _TOKEN_BYTES)  # and no more: a.b's new files are none of a's
_UNSUPPORTED = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK, errno.EDEADLK)


class Disk(Protocol):
    """What replacing a file asks of a file system. All of it may raise OSError."""

    def lock(self, path: Path) -> AbstractContextManager[bool]:
        """Keep other writers of a path out; whether that is so, as not every disk has locks."""

    def leftovers(self, path: Path) -> list[Path]:
        """New files of a path that a writer left behind when it was killed."""

    def create(self, path: Path) -> int:
        """Make a new, empty file; its handle."""

    def write(self, handle: int, data: memoryview) -> None:
        """Append bytes."""

    def fsync(self, handle: int) -> None:
        """Return when a file's bytes are on the disk; its name need not be."""

    def close(self, handle: int) -> None:
        """Give a handle back."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in the place of what had it."""

    def fsync_folder(self, folder: Path) -> None:
        """Return when a folder's names are on the disk."""

    def unlink(self, path: Path) -> None:
        """Take a file's name away."""


@dataclass(frozen=True, slots=True)
class SystemDisk:
    """The operating system's files.

    Args:
        patience_s: how long to wait for another writer of the same path.
    """

    patience_s: float = 30.0

    @contextmanager
    def lock(self, path: Path) -> Iterator[bool]:
        """A lock that the system drops when its process ends, on a file that goes with it.

        Raises:
            BlockingIOError: another writer has it for longer than ``patience_s``.
        """
        name = path.with_name(f".{path.name}.lock")
        handle, held = _acquire(name, time.monotonic() + self.patience_s)
        try:
            yield held
        finally:
            _release(handle, name, held)

    def leftovers(self, path: Path) -> list[Path]:
        """See ``Disk``."""
        return list(path.parent.glob(f".{escape(path.name)}.{_ANY_TOKEN}.new"))

    def create(self, path: Path) -> int:
        """See ``Disk``."""
        binary: int = getattr(os, "O_BINARY", 0)  # Windows
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | binary, 0o666)

    def write(self, handle: int, data: memoryview) -> None:
        """See ``Disk``."""
        rest = data
        while rest:
            rest = rest[os.write(handle, rest) :]

    def fsync(self, handle: int) -> None:
        """See ``Disk``; on macOS through the drive's own cache as well, where that can be had."""
        if sys.platform != "win32" and hasattr(fcntl, "F_FULLFSYNC"):
            with suppress(OSError):
                fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
                return
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """See ``Disk``."""
        os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """See ``Disk``."""
        source.replace(target)

    def fsync_folder(self, folder: Path) -> None:
        """See ``Disk``. Windows has no such call: NTFS keeps a journal of names."""
        if sys.platform == "win32":
            return
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:  # a network's disk that cannot
                raise
        finally:
            os.close(handle)

    def unlink(self, path: Path) -> None:
        """See ``Disk``."""
        path.unlink()


SYSTEM = SystemDisk()


def replace_file(path: Path, parts: Iterable[memoryview], disk: Disk = SYSTEM) -> None:
    """Write a file whole or not at all; a reader, or a loss of power, sees the old or the new.

    When this returns, the new one is on the disk. When it raises, the old one is as it was, unless
    only the last step failed: then it is the one or the other.

    Args:
        path: the file; its folder exists.
        parts: the new content, in pieces.
        disk: the file system.

    Raises:
        OSError: the disk refuses; BlockingIOError where another writer is at it.
    """
    new = path.with_name(f".{path.name}.{secrets.token_hex(_TOKEN_BYTES)}.new")
    with disk.lock(path) as alone:
        for old in disk.leftovers(path) if alone else ():
            disk.unlink(old)
        try:
            _write_new(new, parts, disk)
            disk.rename(new, path)
        except BaseException:
            with suppress(OSError):
                disk.unlink(new)
            raise
        disk.fsync_folder(path.parent)


def _write_new(path: Path, parts: Iterable[memoryview], disk: Disk) -> None:
    handle = disk.create(path)
    try:
        for part in parts:
            disk.write(handle, part)
        disk.fsync(handle)
    finally:
        disk.close(handle)


def _acquire(name: Path, deadline: float) -> tuple[int, bool]:
    """The lock file's handle, and whether it is locked: False where the disk has no locks."""
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            held = _try_lock(handle)
            if held is None or (held and _is_named(handle, name)):
                return handle, bool(held)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not held and time.monotonic() >= deadline:
            raise BlockingIOError(errno.EAGAIN, "another process is writing it")
        time.sleep(0 if held else _POLL_S)


def _try_lock(handle: int) -> bool | None:
    """Whether the lock was free; None where there are no locks."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        if error.errno in _UNSUPPORTED:
            return None
        raise
    return True


def _is_named(handle: int, name: Path) -> bool:
    """Whether the locked file still has its name: the one before may have taken it away."""
    try:
        return os.path.samestat(os.fstat(handle), name.stat())
    except FileNotFoundError:
        return False


def _release(handle: int, name: Path, held: bool) -> None:
    """Take the file away while it is locked; Windows lets go of the name after the handle."""
    if held and sys.platform != "win32":
        with suppress(OSError):
            name.unlink()
        fcntl.flock(handle, fcntl.LOCK_UN)  # a forked child may have the handle too
    os.close(handle)
    if not held or sys.platform == "win32":
        with suppress(OSError):
            name.unlink()
