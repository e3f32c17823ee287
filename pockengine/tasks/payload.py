"""Fetch a model's weights or a data set out of a registry package, when it is first asked for.

Nothing of a payload is part of this project. It is downloaded by the registry's own client, checked
against its pinned sha256, and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pockengine.errors import PayloadError
from pockengine.tasks.archives import archive_files
from pockengine.tasks.registries import RegistryError, download
from pockengine.watched import is_watched


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One file, or one folder of files, inside a registry package.

    Attributes:
        name: its name in the cache and in messages.
        registry: a key of ``registries.REGISTRIES``.
        package: the package's name in the registry.
        version: the exact version; "" where the payload is the same in all of them.
        member: path of the file or folder inside the package.
        sha256: of the file; of a folder see ``digest``.
        licence: the payload's licence, as its authors state it.
    """

    name: str
    registry: str
    package: str
    version: str
    member: str
    sha256: str
    licence: str

    @property
    def source(self) -> str:
        """Where it comes from, in words: registry, package, version."""
        return " ".join(filter(None, (self.registry, self.package, self.version)))


def payload_dir() -> Path:
    """Return the cache folder of payloads: ``$XDG_CACHE_HOME/pockengine/payloads``."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pockengine" / "payloads"


def fetch(payload: Payload) -> Path:
    """Return the payload's place in the cache, downloading it first where needed.

    A download is told on a terminal or in a notebook, and the content is checked each time. Two
    processes may fetch at once: each unpacks aside and renames; the first wins. With
    ``POCKENGINE_OFFLINE`` set to anything, nothing is downloaded.

    Raises:
        PayloadError: it is not cached and cannot be had or kept, or is not what was pinned.
    """
    target = payload_dir() / f"{payload.name}-{payload.sha256[:16]}"
    if target.exists() and digest(target) == payload.sha256:
        return target
    if os.environ.get("POCKENGINE_OFFLINE"):
        raise _unavailable(payload, target, "it is not cached and POCKENGINE_OFFLINE is set")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch_folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-")
    except OSError as error:
        raise _unwritable(payload, error) from error
    if is_watched():
        sys.stderr.write(f"fetching {payload.name} from {payload.source}, once\n")
    with scratch_folder as scratch:
        unpacked = _unpack(payload, target, Path(scratch))
        found = digest(unpacked)
        if found != payload.sha256:
            raise _unavailable(payload, target, f"the downloaded content has sha256 {found}")
        _install(unpacked, target, payload.sha256, Path(scratch))
    return target


def digest(path: Path) -> str:
    """Return the sha256 of a file; of a folder, that of its sorted ``path sha256`` lines."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = {p.relative_to(path).as_posix(): digest(p) for p in path.rglob("*") if p.is_file()}
    return _folder_digest(files)


def _folder_digest(files: Mapping[str, str]) -> str:
    lines = "".join(f"{name} {value}\n" for name, value in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _unpack(payload: Payload, target: Path, scratch: Path) -> Path:
    downloads = scratch / "download"
    downloads.mkdir()
    unpacked = scratch / "payload"
    inside = payload.member + "/"
    try:
        archive = download(payload.registry, payload.package, payload.version, downloads)
        for name, content in archive_files(archive):
            if name == payload.member:
                unpacked.write_bytes(content)
            elif name.startswith(inside) and ".." not in Path(name).parts:
                path = unpacked / name.removeprefix(inside)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    except (RegistryError, OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise _unavailable(payload, target, str(error)) from error
    if not unpacked.exists():
        raise _unavailable(payload, target, f"{archive.name} holds no {payload.member}")
    return unpacked


def _install(unpacked: Path, target: Path, sha256: str, scratch: Path) -> None:
    """Move the checked payload to its place; what was damaged there goes away."""
    if target.exists() and digest(target) != sha256:
        shutil.move(target, scratch / "damaged")
    try:
        unpacked.rename(target)
    except OSError:
        if digest(target) != sha256:  # else another process was first
            raise


def _unwritable(payload: Payload, error: OSError) -> PayloadError:
    return PayloadError(
        where=f"payload {payload.name}",
        found=f"{payload_dir()} cannot be written ({error.strerror})",
        needed="a folder that keeps what is fetched",
        remedy="Free space there, or set XDG_CACHE_HOME to a folder of yours",
    )


def _unavailable(payload: Payload, target: Path, found: str) -> PayloadError:
    return PayloadError(
        where=f"payload {payload.name}",
        found=found,
        needed=f"needs {payload.member} of {payload.source}, sha256 {payload.sha256}",
        remedy=f"Connect to a network, or put it at {target} yourself, or use a built-in task",
    )
