"""The C compiler behind its one door."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pockengine.errors import BuildError
from pockengine.lower import link


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A C file that includes a header, and a cache folder of its own."""
    zig = link.cache_dir() / "zig"
    monkeypatch.setattr(link, "cache_dir", lambda: tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    zig.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache" / "zig").symlink_to(zig)  # the compiler's own parts, slow to build
    (tmp_path / "answer.h").write_text("#define ANSWER 42\n")
    file = tmp_path / "answer.c"
    file.write_text('#include "answer.h"\nint answer(void) { return ANSWER; }\n')
    return file


def _answer(library: Path) -> int:
    answer: int = ctypes.CDLL(str(library)).answer()
    return answer


def test_built_once(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time no compiler runs."""
    first = link.build_shared([source], name="answer")
    monkeypatch.setattr(link, "_compile", None)
    assert link.build_shared([source], name="answer") == first
    assert _answer(first) == 42


def test_a_header_counts(source: Path) -> None:
    """A changed header is a new library; the old one stays."""
    first = link.build_shared([source], name="answer")
    (source.parent / "answer.h").write_text("#define ANSWER 43\n")
    second = link.build_shared([source], name="answer")
    assert (_answer(first), _answer(second)) == (42, 43)


def test_two_at_once(source: Path) -> None:
    """Builds of the same library that race both end with a whole one and leave nothing behind."""
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(link.build_shared, [source], name="answer") for _ in range(2)]
        one, two = (run.result() for run in runs)
    assert one == two
    assert _answer(one) == 42
    assert [path.name for path in one.parent.iterdir()] == [one.name]


def test_the_compilers_message_is_shown(source: Path) -> None:
    """C that does not compile: the error quotes the compiler."""
    source.write_text("int answer(void) { return UNKNOWN; }\n")
    with pytest.raises(BuildError, match=r"(?s)libanswer.so: zig cc stopped with 1: .*'UNKNOWN'"):
        link.build_shared([source], name="answer")


def test_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_CACHE_HOME moves the cache; without it, it is in the home directory."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert link.cache_dir() == tmp_path / "pockengine"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert link.cache_dir() == tmp_path / ".cache" / "pockengine"


def test_unwritable_cache_says_so(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in place of the cache folder gives a remedy."""
    monkeypatch.setattr(link, "cache_dir", lambda: source)
    with pytest.raises(BuildError, match="set XDG_CACHE_HOME"):
        link.build_shared([source], name="answer")
