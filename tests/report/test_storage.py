"""What the cache holds, while others use it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from pockengine.report.storage import stored


def test_a_folder_deleted_meanwhile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Another process's folder may go between being listed and being read: the rest is told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtime = tmp_path / "pockengine" / "runtime"
    gone = runtime / "gone"
    gone.mkdir(parents=True)
    (gone / "half").write_bytes(bytes(10_000))
    (runtime / "kept").write_bytes(bytes(10_000))
    real = os.scandir

    def scandir(path: Any = ".") -> Any:
        if str(path) == str(gone):
            shutil.rmtree(gone, ignore_errors=True)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = {part.name: part for part in stored()}
    assert found["runtime"].files == 1
    assert found["runtime"].nbytes >= 10_000
    assert not gone.exists()
