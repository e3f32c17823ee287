"""A disk that forgets: what was not synced survives a loss of power in part, and in any order."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, combinations
from pathlib import Path

SECTOR = 512

Change = dict[Path, int | None]
"""What one operation does to a folder, all at once: a name gets a file, or loses it."""


@dataclass(frozen=True)
class _File:
    """A file: what a sync has made safe, and the writes since, as offset and bytes."""

    safe: bytes = b""
    writes: tuple[tuple[int, bytes], ...] = ()

    @property
    def content(self) -> bytes:
        """As a process sees it."""
        return _written(self.safe, self.writes)


@dataclass(frozen=True)
class Moment:
    """What a disk holds, safe and not, after some operation."""

    names: Change
    changes: tuple[Change, ...]
    files: dict[int, _File]

    def current(self) -> dict[Path, bytes]:
        """As a process sees it."""
        names = _renamed(self.names, self.changes)
        return {path: self.files[file].content for path, file in names.items() if file is not None}

    def outcomes(self, chance: random.Random, count: int) -> Iterator[dict[Path, bytes]]:
        """What may be there when the power is back.

        Every subset of the unsynced changes of names, in the order they were made or in another;
        each with some of the unsynced writes, torn at sectors, and the file cut or long enough.
        """
        subsets = chain.from_iterable(
            combinations(self.changes, size) for size in range(len(self.changes) + 1)
        )
        for kept in subsets:
            for turn in range(count):
                order = list(kept)
                if turn % 2:
                    chance.shuffle(order)
                names = _renamed(self.names, tuple(order))
                yield {
                    path: _survived(self.files[file], chance)
                    for path, file in names.items()
                    if file is not None
                }


@dataclass
class ForgetfulDisk:
    """A ``pockengine.disk.Disk`` in memory that notes each moment at which power may be lost.

    Args:
        room: bytes that fit on it.
        broken: the number of the operation, from 0, that fails; None for none.
        moments: the disk before the first operation and after each.
    """

    room: int = 1 << 40
    broken: int | None = None
    moments: list[Moment] = field(default_factory=lambda: [Moment({}, (), {})])
    operations: int = 0
    _open: dict[int, int] = field(default_factory=dict)

    def put(self, path: Path, content: bytes) -> None:
        """Have a file on the disk, all synced, as the only moment so far."""
        now = self.now
        number = len(now.files)
        names, files = {**now.names, path: number}, {**now.files, number: _File(content)}
        self.moments = [Moment(names, now.changes, files)]

    @property
    def now(self) -> Moment:
        """The latest moment."""
        return self.moments[-1]

    def lock(self, path: Path) -> AbstractContextManager[bool]:
        """Nobody else is here."""
        del path
        return nullcontext(enter_result=True)

    def leftovers(self, path: Path) -> list[Path]:
        """See ``Disk``."""
        names = self.now.current()
        return [n for n in names if n.name.startswith(f".{path.name}.") and n.suffix == ".new"]

    def create(self, path: Path) -> int:
        """See ``Disk``."""
        self._count()
        number = len(self.now.files)
        self._step(changed={path: number}, files={number: _File()})
        self._open[number + 100] = number
        return number + 100

    def write(self, handle: int, data: memoryview) -> None:
        """See ``Disk``; a full disk takes what fits."""
        self._count()
        number = self._open[handle]
        file = self.now.files[number]
        used = sum(map(len, self.now.current().values()))
        taken = bytes(data)[: self.room - used]
        written = (len(file.content), taken)
        self._step(files={number: replace(file, writes=(*file.writes, written))})
        if len(taken) < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def fsync(self, handle: int) -> None:
        """See ``Disk``."""
        self._count()
        number = self._open[handle]
        self._step(files={number: _File(self.now.files[number].content)})

    def close(self, handle: int) -> None:
        """See ``Disk``."""
        del self._open[handle]

    def rename(self, source: Path, target: Path) -> None:
        """See ``Disk``."""
        self._count()
        file = _renamed(self.now.names, self.now.changes)[source]
        self._step(changed={source: None, target: file})

    def fsync_folder(self, folder: Path) -> None:
        """See ``Disk``."""
        del folder
        self._count()
        now = self.now
        self.moments.append(Moment(_renamed(now.names, now.changes), (), now.files))

    def unlink(self, path: Path) -> None:
        """See ``Disk``."""
        self._count()
        if path not in self.now.current():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        self._step(changed={path: None})

    def _count(self) -> None:
        self.operations += 1
        if self.operations - 1 == self.broken:
            raise OSError(errno.EIO, "Input/output error")

    def _step(self, changed: Change | None = None, files: dict[int, _File] | None = None) -> None:
        now = self.now
        changes = now.changes if changed is None else (*now.changes, changed)
        self.moments.append(Moment(now.names, changes, {**now.files, **(files or {})}))


def _renamed(names: Change, changes: tuple[Change, ...]) -> Change:
    found = dict(names)
    for change in changes:
        found.update(change)
    return {path: file for path, file in found.items() if file is not None}


def _written(content: bytes, writes: tuple[tuple[int, bytes], ...]) -> bytes:
    """Bytes after writes; a hole reads as zeros."""
    found = bytearray(content)
    for offset, data in writes:
        found.extend(bytes(max(offset + len(data) - len(found), 0)))
        found[offset : offset + len(data)] = data
    return bytes(found)


def _survived(file: _File, chance: random.Random) -> bytes:
    """A file's bytes after some sectors of its unsynced writes came through."""
    share = chance.choice((0.0, 0.5, 0.9, 1.0))
    sectors = tuple(
        (offset + at, data[at : at + SECTOR])
        for offset, data in file.writes
        for at in range(0, len(data), SECTOR)
        if chance.random() < share
    )
    found = _written(file.safe, sectors)
    longest = max((offset + len(data) for offset, data in file.writes), default=0)
    length = chance.choice((len(found), max(longest, len(file.safe)), chance.randint(0, longest)))
    length = max(length, len(file.safe))
    return found[:length] + bytes(max(length - len(found), 0))
