"""The kernel cache: found again, rebuilt when damaged, shared by processes, free of TVM."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pockengine.errors import BuildError
from pockengine.lower.cache import KernelCache, Request, build_many, kernel_key, load
from pockengine.lower.features import host_target
from pockengine.lower.tiles import tile_parameters

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
from pockengine.lower import cache, codegen, features, tiles
tiles.tile_parameters(features.host_target())
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
