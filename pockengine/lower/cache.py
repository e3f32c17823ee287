"""Kernels on disk, so that each is built once per machine, and the mapping of them into memory.

An entry is a file: a 64-byte header with the payload's SHA-256, then the payload, a blob of
`pockengine.lower.blob` (host) or an object file (other targets). Entries are written under another
name and renamed, so a reader sees all or nothing; what does not match its checksum is built anew.
After a build, what was not used for longest goes where there is too much (``eviction``).
Nothing here imports TVM.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import json
import mmap
import multiprocessing
import os
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pockengine.errors import BuildError
from pockengine.lower.blob import LOAD_OFFSET
from pockengine.lower.eviction import cache_limit, sweep, touch
from pockengine.lower.link import unwritable
from pockengine.lower.progress import Progress

ABI_VERSION = 1
"""Counted up when the kernel interface changes: ``int32_t k(operands..., int64_t, int64_t)``."""

_HEADER = struct.Struct("<8sQ32s16x")
_MAGIC = b"PEKERN\0\1"
_NOT_EMITTERS = frozenset(
    "cache eviction features in_place link program progress tuning".split()
)  # modules of this package that shape no code


@dataclass(frozen=True, slots=True)
class Request:
    """One kernel that is wanted.

    Attributes:
        key: from `kernel_key`.
        builder: picklable function that returns the payload; runs only when the cache misses, maybe
            in another process. For TVM-free hits, its module must not import TVM at the top.
        arguments: its picklable arguments.
    """

    key: str
    builder: Callable[..., bytes]
    arguments: tuple[Any, ...] = ()


class KernelCache:
    """Payloads by key in one folder, safe for several processes at once.

    Args:
        root: the folder; it is made when the first entry is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, key: str) -> Path:
        """File of an entry, whether it exists or not."""
        return self.root / key[:2] / f"{key}.kernel"

    def get(self, key: str) -> bytes | None:
        """The payload, or None when it is missing or damaged; it counts as used."""
        path = self.path(key)
        try:
            found = _payload(path.read_bytes())
        except OSError:
            return None
        touch(path)
        return found

    def put(self, key: str, payload: bytes) -> Path:
        """Write an entry in one step.

        Raises:
            BuildError: the folder cannot be written.
        """
        path = self.path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_HEADER.pack(_MAGIC, len(payload), _digest(payload)) + payload)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise unwritable(self.root, error) from error
        return path


def kernel_key(text: str, target: Mapping[str, Any]) -> str:
    """Name of a kernel: equal keys mean equal machine code.

    Args:
        text: canonical text of all that shapes the kernel: op, shapes, epilogue, tiles.
        target: resolved target dict (never ``native``).
    """
    parts = (
        text,
        json.dumps(dict(target), sort_keys=True),
        _compiler_version(),
        _emitters_digest(),
        str(ABI_VERSION),
    )
    return _digest("\0".join(parts).encode()).hex()


def build_many(
    cache: KernelCache,
    requests: Iterable[Request],
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Have every requested kernel in the cache; build the missing ones in parallel.

    Args:
        cache: where they are kept.
        requests: equal keys are built once, and not again where another process just built them.
        workers: processes; None means one per core this process may use.
        progress: is told how many are built; not called where none is missing.

    Returns:
        Key -> file, for `load`.

    Raises:
        BuildError: a builder failed, or the cache cannot be written.
        InputError: the environment sets no proper limit of the cache's size.
    """
    wanted = {request.key: request for request in requests}
    missing = [request for key, request in wanted.items() if cache.get(key) is None]
    paths = {key: cache.path(key) for key in wanted}
    if missing:
        limit = cache_limit()
        count = min(_cores() if workers is None else workers, len(missing))
        _build_all(cache, missing, count, progress or _untold)
        for path in paths.values():  # a long build must not make old what it is about to use
            touch(path)
        sweep(cache.root, limit)
    return paths


def load(path: Path) -> int:
    """Map a kernel's code, read-only and executable; the address is a C function pointer.

    The mapping is backed by the file, shared by all that load it, and lives as long as the process.

    Raises:
        BuildError: the file is missing or damaged, or the system refuses executable memory.
    """
    try:
        status = path.stat()
        return _map(path, status.st_ino, status.st_mtime_ns)
    except OSError as error:
        raise _unusable(path, str(error)) from error


def read_payload(path: Path) -> bytes:
    """What an entry holds.

    Raises:
        BuildError: the file is missing or damaged.
    """
    try:
        payload = _payload(path.read_bytes())
    except OSError as error:
        raise _unusable(path, str(error)) from error
    if payload is None:
        raise _unusable(path, "wrong checksum")
    return payload


@functools.cache
def _map(path: Path, _inode: int, _time: int) -> int:
    image = path.read_bytes()
    if _payload(image) is None:
        raise _unusable(path, "wrong checksum")
    with path.open("rb") as file:
        try:
            return _executable(file.fileno(), len(image))
        except OSError:  # the file system is mounted noexec
            return _executable_copy(image)


def _executable_copy(image: bytes) -> int:
    descriptor = os.memfd_create("pockengine-kernel")
    try:
        os.write(descriptor, image)
        return _executable(descriptor, len(image))
    finally:
        os.close(descriptor)


def _executable(descriptor: int, size: int) -> int:
    """Address of the payload of a header and payload mapped from an open file."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    address = libc.mmap(None, size, protection, mmap.MAP_PRIVATE, descriptor, 0)
    if address is None or address == ctypes.c_void_p(-1).value:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(address) + LOAD_OFFSET


def _build_all(
    cache: KernelCache, missing: Sequence[Request], workers: int, progress: Progress
) -> None:
    progress(0, len(missing))
    if workers > 1:
        _build_parallel(cache, missing, workers, progress)
        return
    for done, request in enumerate(missing, start=1):
        _build(cache, request)
        progress(done, len(missing))


def _build_parallel(
    cache: KernelCache, missing: Sequence[Request], workers: int, progress: Progress
) -> None:
    """Forked workers: they inherit what is imported, and only run TVM, which has no threads yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
        context = multiprocessing.get_context("fork")
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            built = [pool.submit(_build, cache, request) for request in missing]
            try:
                for done, future in enumerate(as_completed(built), start=1):
                    future.result()
                    progress(done, len(missing))
            except BaseException:  # Ctrl-C too: what is under way ends, nothing else begins
                pool.shutdown(cancel_futures=True)
                raise


def _build(cache: KernelCache, request: Request) -> None:
    if cache.get(request.key) is None:  # another process may have been faster
        cache.put(request.key, request.builder(*request.arguments))


def _cores() -> int:
    """How many this process may use; what only Linux tells, others answer for the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _untold(done: int, total: int) -> None:
    del done, total


def _payload(image: bytes) -> bytes | None:
    if len(image) < _HEADER.size:
        return None
    magic, size, digest = _HEADER.unpack_from(image)
    payload = image[_HEADER.size :]
    whole = magic == _MAGIC and size == len(payload) and digest == _digest(payload)
    return payload if whole else None


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@functools.cache
def _compiler_version() -> str:
    return importlib.metadata.version("apache-tvm")


@functools.cache
def _emitters_digest() -> str:
    """Digest of the sources that turn a request into code."""
    state = hashlib.sha256()
    for path in emitters():
        state.update(path.name.encode() + b"\0" + path.read_bytes())
    return state.hexdigest()


def emitters() -> list[Path]:
    """The sources that turn a request into code, and those that say what its text means."""
    own = Path(__file__).parent
    lower = [path for path in sorted(own.glob("*.py")) if path.stem not in _NOT_EMITTERS]
    return [*sorted((own.parent / "ir").glob("*.py")), *lower]


def _unusable(path: Path, found: str) -> BuildError:
    return BuildError(
        where=f"kernel {path}",
        found=found,
        needed="a whole entry of the kernel cache",
        remedy="delete the file and compile again",
    )
