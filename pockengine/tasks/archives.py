"""Read the files out of a registry package (wheel, zip, tar, deb) without running any."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path


def archive_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ``(path inside the package, content)`` of each regular file; links are left out.

    Args:
        archive: a ``.whl``, ``.zip``, ``.tar.*``, ``.tgz`` or ``.deb`` file.

    Raises:
        OSError, tarfile.TarError, zipfile.BadZipFile: the archive cannot be read
            (``FileNotFoundError``: a Debian package and no ``dpkg-deb``).
    """
    if archive.suffix in {".whl", ".zip"}:
        yield from _zip_files(archive)
    elif archive.suffix == ".deb":
        yield from _deb_files(archive)
    else:
        with tarfile.open(archive) as tar:
            yield from _tar_files(tar)


def _zip_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as package:
        for entry in package.infolist():
            if not entry.is_dir():
                yield entry.filename, package.read(entry)


def _deb_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE) as process,
        tarfile.open(fileobj=process.stdout, mode="r|") as tar,
    ):
        yield from _tar_files(tar)


def _tar_files(tar: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for entry in tar:
        content = tar.extractfile(entry) if entry.isreg() else None
        if content is not None:
            yield entry.name.removeprefix("./"), content.read()
