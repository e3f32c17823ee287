"""The kernel cache: found again, rebuilt when damaged, shared by processes, free of TVM."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pockengine.errors import BuildError, InputError
from pockengine.lower.cache import KernelCache, Request, build_many, emitters, kernel_key, load
from pockengine.lower.eviction import (
    DEFAULT_LIMIT_BYTES,
    IN_USE_SECONDS,
    cache_limit,
    evict,
    occupied,
)
from pockengine.lower.features import host_target
from pockengine.lower.progress import teller
from pockengine.lower.tile_parameters import tile_parameters

TARGET = {"kind": "llvm", "mcpu": "haswell"}
KEY = kernel_key("a kernel", TARGET)


def payload(text: str, log: str) -> bytes:
    """A builder that leaves a line per call."""
    with Path(log).open("a") as file:
        file.write(f"{text} {os.getpid()}\n")
    return text.encode()


def fail(text: str) -> bytes:
    """A builder that cannot build."""
    raise BuildError(where=text, found="nothing", needed="something", remedy="None")


def test_what_is_put_is_found(tmp_path: Path) -> None:
    """The bytes put come out of get, which gives None before."""
    cache = KernelCache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, b"code")
    assert cache.get(KEY) == b"code"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:70] + b"!" + b[71:], lambda _: b""]
)
def test_damage_is_a_miss_and_is_repaired(tmp_path: Path, damage: object) -> None:
    """A truncated, altered or empty entry is built again, and is not loaded before."""
    cache = KernelCache(tmp_path)
    path = cache.put(KEY, b"sixteen bytes of")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert cache.get(KEY) is None
    with pytest.raises(BuildError, match="wrong checksum"):
        load(path)
    build_many(cache, [Request(KEY, payload, ("repaired", str(tmp_path / "log")))])
    assert cache.get(KEY) == b"repaired"


def test_each_key_is_built_once_and_in_several_processes(tmp_path: Path) -> None:
    """Four keys asked for twice are four builds, outside this process; a warm call builds none."""
    cache, log = KernelCache(tmp_path / "cache"), tmp_path / "log"
    requests = [Request(f"{i % 4:064x}", payload, (str(i % 4), str(log))) for i in range(8)]
    for _ in range(2):
        paths = build_many(cache, requests, workers=2)
    lines = [line.split() for line in log.read_text().splitlines()]
    assert sorted(text for text, _ in lines) == ["0", "1", "2", "3"]
    assert str(os.getpid()) not in {process for _, process in lines}
    assert [cache.get(key) for key in paths] == [b"0", b"1", b"2", b"3"]


def test_a_failed_build_is_reported(tmp_path: Path) -> None:
    """A builder's error crosses the process border; what was built stays."""
    cache = KernelCache(tmp_path / "cache")
    good = Request("a" * 64, payload, ("good", str(tmp_path / "log")))
    with pytest.raises(BuildError, match="bad kernel: nothing"):
        build_many(cache, [good, Request("b" * 64, fail, ("bad kernel",))], workers=2)
    assert cache.get("a" * 64) == b"good"


def test_writers_at_once_leave_a_whole_entry(tmp_path: Path) -> None:
    """Many writers of one key: a reader sees one of the payloads, and no temporary file stays."""
    cache = KernelCache(tmp_path)
    candidates = [bytes([i]) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda data: cache.put(KEY, data), candidates))
    assert cache.get(KEY) in candidates
    assert [path.name for path in cache.path(KEY).parent.iterdir()] == [f"{KEY}.kernel"]


def test_keys_tell_structure_and_processor_apart() -> None:
    """Another text or another feature is another kernel; the order of the dict is not."""
    assert kernel_key("b kernel", TARGET) != KEY
    assert kernel_key("a kernel", {**TARGET, "mattr": ["+avx512f"]}) != KEY
    assert kernel_key("a kernel", dict(reversed(TARGET.items()))) == KEY


def test_unwritable_cache_says_so(tmp_path: Path) -> None:
    """A file in place of the folder gives a remedy."""
    (tmp_path / "file").write_text("")
    with pytest.raises(BuildError, match="set XDG_CACHE_HOME"):
        KernelCache(tmp_path / "file").put(KEY, b"")


def test_a_hit_imports_no_tvm(tmp_path: Path) -> None:
    """Keys, hits and extents come without the seconds that importing TVM takes."""
    KernelCache(tmp_path).put(KEY, b"code")
    program = f"""
import sys
from pathlib import Path
from pockengine.lower import cache, codegen, features, tile_parameters
tile_parameters.tile_parameters(features.host_target())
path = cache.build_many(cache.KernelCache(Path({str(tmp_path)!r})), [cache.Request({KEY!r}, print)])
cache.load(path[{KEY!r}])
assert cache.kernel_key("a kernel", {TARGET!r}) == {KEY!r}
assert "tvm" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_host_target_spells_out_features() -> None:
    """A processor without AVX-512 gets it denied by name, and narrower tiles."""
    flags = "flags : fpu sse sse4_2 avx avx2 fma f16c bmi1 bmi2 abm movbe popcnt pni ssse3 sse4_1"
    target = host_target(flags, "x86_64")
    assert target["mcpu"] == "haswell"
    assert {"+avx2", "-avx512f"} <= set(target["mattr"])
    assert tile_parameters(target).vector_lanes == 8
    assert tile_parameters(host_target("Features : fp asimd", "aarch64")).vector_lanes == 4


def test_unknown_processor_family_is_an_error() -> None:
    """A family without a row is named."""
    with pytest.raises(BuildError, match="processor family 'vax'"):
        host_target("", "vax")


def test_what_another_process_built_meanwhile_is_not_built_again(tmp_path: Path) -> None:
    """A worker looks once more before it builds."""
    cache = KernelCache(tmp_path / "cache")

    def tell(done: int, total: int) -> None:
        if done == 0:
            assert total == 1
            cache.put(KEY, b"theirs")

    build_many(cache, [Request(KEY, fail, ("must not run",))], progress=tell)
    assert cache.get(KEY) == b"theirs"


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_counts_what_is_missing(tmp_path: Path, workers: int) -> None:
    """From none to all; nothing is told where nothing is missing."""
    cache, told = KernelCache(tmp_path / "cache"), list[tuple[int, int]]()
    requests = [Request(f"{i:064x}", payload, (str(i), str(tmp_path / "log"))) for i in range(3)]
    for _ in range(2):
        build_many(cache, requests, workers, progress=lambda *now: told.append(now))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_progress_is_shown_to_people_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal there is a line that ends empty; in a pipe there is none."""
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert teller(None) is None
    assert teller(progress=False) is None
    line = teller(progress=True)
    assert line is not None
    line(1, 2)
    assert sys.stderr.getvalue() == "\rbuilding kernels: 1 of 2"  # type: ignore[attr-defined]
    line(2, 2)
    assert sys.stderr.getvalue().rstrip(" \r").endswith("2 of 2")  # type: ignore[attr-defined]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert teller(None) is line


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    """Reading an entry keeps it; the rest goes until there is room, the recently used stay."""
    cache = KernelCache(tmp_path)
    keys = [f"{i:064x}" for i in range(4)]
    paths = [cache.put(key, bytes(1000)) for key in keys]
    written = time.time() - 2 * IN_USE_SECONDS
    for age, path in enumerate(paths):
        os.utime(path, (written + age, written))
    assert cache.get(keys[0]) is not None  # the oldest, used now
    size = occupied(paths[0].stat())
    assert evict(tmp_path, 4 * size) == 0
    assert evict(tmp_path, 3 * size - 1) == 2 * size
    assert [path.exists() for path in paths] == [True, False, False, True]
    assert evict(tmp_path, 0) == size
    assert paths[0].exists()
    assert paths[0].stat().st_mtime == pytest.approx(written)  # what maps it, maps it once


def test_a_build_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old entries go when new ones come, within the limit that the environment sets."""
    cache = KernelCache(tmp_path / "cache")
    old = cache.put("a" * 64, b"old")
    os.utime(old, (0, 0))
    monkeypatch.setenv("POCKENGINE_CACHE_BYTES", "100")
    build_many(cache, [Request(KEY, payload, ("new", str(tmp_path / "log")))])
    assert (old.exists(), cache.get(KEY)) == (False, b"new")
    os.utime(cache.put("a" * 64, b"old"), (0, 0))
    build_many(cache, [Request("b" * 64, payload, ("newer", str(tmp_path / "log")))])
    assert old.exists()  # what was looked through a moment ago is not again


def test_a_long_build_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the missing kernels took, those that were there are still to be mapped."""
    cache = KernelCache(tmp_path / "cache")
    there = cache.put("a" * 64, b"there")
    monkeypatch.setenv("POCKENGINE_CACHE_BYTES", "0")
    paths = build_many(
        cache,
        [Request("a" * 64, _untouched), Request(KEY, _slow, (str(there),))],
        workers=1,
    )
    assert {path.read_bytes()[64:] for path in paths.values()} == {b"there", b"slow"}


def _untouched() -> bytes:
    raise AssertionError("it is there")


def _slow(there: str) -> bytes:
    """Make an entry look as if it had been used long before this ended."""
    os.utime(there, (0, 0))
    return b"slow"


@pytest.mark.parametrize(
    ("spec", "nbytes"),
    [("", DEFAULT_LIMIT_BYTES), ("0", 0), ("12", 12), ("3 k", 3 << 10), ("2GiB", 2 << 30)],
)
def test_limit_of_the_environment(spec: str, nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, or powers of 1024."""
    monkeypatch.setenv("POCKENGINE_CACHE_BYTES", spec)
    assert cache_limit() == nbytes


def test_limit_that_is_no_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what would be one."""
    monkeypatch.setenv("POCKENGINE_CACHE_BYTES", "plenty")
    with pytest.raises(InputError, match="POCKENGINE_CACHE_BYTES: 'plenty'; a size in bytes"):
        cache_limit()


def test_keys_change_with_whatever_shapes_code() -> None:
    """Every module that building a kernel imports is in the digest, and the cache itself is not."""
    program = "import sys, pockengine.lower.build\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120
    )
    parts = ("pockengine.ir.", "pockengine.lower.")
    needed = {name for name in done.stdout.split() if name.startswith(parts)}
    found = {f"pockengine.{path.parent.name}.{path.stem}" for path in emitters()}
    assert needed <= found
    assert "pockengine.lower.cache" not in found
