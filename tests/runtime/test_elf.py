"""Object files read: what they take, and what they leave open."""

from __future__ import annotations

from pathlib import Path

import pytest

from pockengine.lower.link import build_object_file
from pockengine.runtime.elf import code_bytes, undefined

SOURCE = """
extern int elsewhere(int);
static const int table[100] = {1, 2, 3};
int written[50];
int here(int x) { return elsewhere(table[x % 100]); }
"""


@pytest.mark.parametrize("triple", ["thumb-freestanding-eabihf", "aarch64-linux-musl"])
def test_object(tmp_path: Path, triple: str) -> None:
    """Code and constants count, zeroed data do not; only calls of other files are open."""
    (tmp_path / "part.c").write_text(SOURCE)
    flags = ["-mcpu=cortex_m7"] if triple.startswith("thumb") else []
    built = build_object_file(
        tmp_path / "part.c", triple=triple, output=tmp_path / "part.o", flags=flags
    )
    assert 400 < code_bytes(built.read_bytes()) < 550
    assert undefined(built.read_bytes()) == {"elsewhere"}
