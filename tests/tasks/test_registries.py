"""Calling the registries' clients."""

from __future__ import annotations

import io
import sys
import tarfile
import textwrap
from pathlib import Path

import pytest

from pockengine.tasks.registries import RegistryError, download
from tests.tasks.packages import write_client, write_tar


def test_sdist_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloading a source distribution runs none of its code, though pip asks for metadata."""
    source, folder = tmp_path / "index", tmp_path / "folder"
    source.mkdir()
    folder.mkdir()
    proof = tmp_path / "ran"
    _write_sdist(source / "trap-1.0.tar.gz", f"open({str(proof)!r}, 'w')")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(source))
    assert download("pypi-sdist", "trap", "1.0", folder).name == "trap-1.0.tar.gz"
    assert not proof.exists()


def _write_sdist(path: Path, setup: str) -> None:
    with tarfile.open(path, "w:gz") as package:
        for name, text in {"setup.py": setup, "PKG-INFO": "Name: trap\nVersion: 1.0\n"}.items():
            entry = tarfile.TarInfo(f"trap-1.0/{name}")
            entry.size = len(text)
            package.addfile(entry, io.BytesIO(text.encode()))


def test_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An npm package is packed, of the version asked for, without its scripts."""
    folder = tmp_path / "folder"
    folder.mkdir()
    packed = write_tar(tmp_path / "p-2.0.tgz")
    write_client(tmp_path / "bin", "npm", f'echo "$@" > {tmp_path}/said; cp {packed} .')
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert download("npm", "p", "2.0", folder).read_bytes() == packed.read_bytes()
    assert (tmp_path / "said").read_text().split() == [
        "pack",
        "--ignore-scripts",
        "--silent",
        "p@2.0",
    ]


def test_debian_refreshes_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system's package lists do not know the package, private ones are fetched."""
    folder = tmp_path / "folder"
    folder.mkdir()
    script = textwrap.dedent("""\
        case "$1$5" in
            download) exit 100;;
            -oupdate) touch $PWD/apt/updated;;
            -odownload) test -e apt/updated && echo deb > p_1_all.deb;;
        esac""")
    write_client(tmp_path / "bin", "apt-get", script)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert download("debian", "p", "", folder).name == "p_1_all.deb"


def test_missing_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that is not installed is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RegistryError, match="npm is not installed"):
        download("npm", "p", "", tmp_path)


def test_failing_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failing client's last line is passed on."""
    write_client(tmp_path / "bin", "npm", "echo one >&2; echo no network >&2; exit 7")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    with pytest.raises(RegistryError, match=r"npm failed \(no network\)"):
        download("npm", "p", "", tmp_path)


def test_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without pip fails with its own words."""
    write_client(tmp_path / "bin", "python", 'echo "No module named pip" >&2; exit 1')
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(RegistryError, match=r"python failed \(No module named pip\)"):
        download("pypi", "p", "1", tmp_path)
