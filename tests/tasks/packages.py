"""Small packages and clients of registries, made on the spot."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

CONTENT = {"pkg/data/a.txt": b"first", "pkg/data/deep/b.txt": b"second", "pkg/code.py": b"1 / 0"}


def write_zip(path: Path) -> Path:
    """Write ``CONTENT`` as a zip file."""
    with zipfile.ZipFile(path, "w") as package:
        for name, content in CONTENT.items():
            package.writestr(name, content)
    return path


def write_tar(path: Path, mode: str = "w:gz") -> Path:
    """Write ``CONTENT``, with a link among it, as a tar file."""
    with tarfile.open(path, mode) as package:  # type: ignore[call-overload]
        for name, content in CONTENT.items():
            entry = tarfile.TarInfo(f"./{name}")
            entry.size = len(content)
            package.addfile(entry, io.BytesIO(content))
        link = tarfile.TarInfo("./pkg/data/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        package.addfile(link)
    return Path(path)


def write_client(folder: Path, name: str, script: str) -> None:
    """Write a program that stands in for a registry's client."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
