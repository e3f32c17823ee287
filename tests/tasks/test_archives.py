"""Reading packages without running them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pockengine.tasks.archives import archive_files
from tests.tasks.packages import CONTENT, write_tar, write_zip


@pytest.mark.parametrize("name", ["p.whl", "p.zip"])
def test_zip(tmp_path: Path, name: str) -> None:
    """A wheel's files come out with their content."""
    assert dict(archive_files(write_zip(tmp_path / name))) == CONTENT


@pytest.mark.parametrize(("name", "mode"), [("p.tgz", "w:gz"), ("p.tar.xz", "w:xz")])
def test_tar(tmp_path: Path, name: str, mode: str) -> None:
    """A tar's regular files come out, its links do not."""
    assert dict(archive_files(write_tar(tmp_path / name, mode))) == CONTENT


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs dpkg-deb")
def test_deb(tmp_path: Path) -> None:
    """A Debian package's files come out without root."""
    (tmp_path / "p" / "DEBIAN").mkdir(parents=True)
    control = "Package: p\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: test\n"
    (tmp_path / "p" / "DEBIAN" / "control").write_text(control)
    (tmp_path / "p" / "share").mkdir()
    (tmp_path / "p" / "share" / "a.txt").write_text("first")
    command = ["dpkg-deb", "--build", str(tmp_path / "p"), str(tmp_path / "p.deb")]
    subprocess.run(command, check=True, capture_output=True)
    assert dict(archive_files(tmp_path / "p.deb")) == {"share/a.txt": b"first"}
