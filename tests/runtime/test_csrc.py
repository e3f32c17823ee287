"""The C sources under warnings and sanitizers, with a system compiler (zig has no sanitizers)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pockengine.runtime.encoding import encode
from pockengine.runtime.library import CORE, CSRC
from tests.runtime.toy import toy_descriptor

HERE = Path(__file__).parent / "csrc"
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-O1", f"-I{CSRC}")
POSIX = ("-D_POSIX_C_SOURCE=200809L", "-pthread", "-Wl,--wrap=malloc,--wrap=calloc")
COMPILER = shutil.which("gcc") or shutil.which("clang")
CHECKS = {
    "plain": (),
    "asan-ubsan": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "tsan": ("-fsanitize=thread",),
}


def _compile(*arguments: str) -> subprocess.CompletedProcess[str]:
    if COMPILER is None:
        pytest.skip("there is neither gcc nor clang")
    return subprocess.run(
        [COMPILER, *STRICT, *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("check", CHECKS)
def test_exercise(tmp_path: Path, check: str) -> None:
    """Threads agree, steps allocate nothing, damage is seen; no sanitizer objects."""
    flags = CHECKS[check]
    (tmp_path / "empty.c").write_text("int main(void) { return 0; }\n")
    if _compile(*flags, str(tmp_path / "empty.c"), "-o", str(tmp_path / "empty")).returncode:
        pytest.skip(f"{COMPILER} has no {check}")
    (tmp_path / "toy.bin").write_bytes(encode(toy_descriptor()))
    sources = [*CORE, CSRC / "os_posix.c", HERE / "toy.c", HERE / "exercise.c"]
    program = tmp_path / "exercise"
    built = _compile(*flags, *POSIX, *map(str, sources), "-o", str(program))
    assert built.returncode == 0, built.stderr
    ran = subprocess.run(
        [program, tmp_path / "toy.bin"], capture_output=True, text=True, check=False, timeout=300
    )
    assert (ran.returncode, ran.stdout) == (0, "ok\n"), ran.stdout + ran.stderr


@pytest.mark.parametrize("source", CORE, ids=lambda path: path.name)
def test_core_needs_nothing(tmp_path: Path, source: Path) -> None:
    """The core calls no function but memcpy and memset, and has no writable data."""
    built = _compile("-O2", "-c", str(source), "-o", str(tmp_path / "core.o"))
    assert built.returncode == 0, built.stderr
    listed = subprocess.run(
        ["nm", tmp_path / "core.o"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    symbols = [line.split()[-2:] for line in listed if line]
    assert {name for kind, name in symbols if kind == "U"} <= {"memcpy", "memset", "pe_run"}
    assert not [name for kind, name in symbols if kind in "bBD"]
