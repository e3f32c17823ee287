"""The demo, as a newcomer without a network meets it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[1] / "experiments" / "demo" / "run.py"


def _run(cache: Path, *options: str) -> str:
    """What the demo prints; nothing can be downloaded and nothing is cached but the kernels."""
    kernels = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pockengine"
    (cache / "pockengine").mkdir()
    for kept in ("kernels", "runtime"):
        (kernels / kept).mkdir(parents=True, exist_ok=True)
        (cache / "pockengine" / kept).symlink_to(kernels / kept)
    environment = {**os.environ, "POCKENGINE_OFFLINE": "1", "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run(
        [sys.executable, str(DEMO), *options],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


@pytest.mark.slow
def test_offline_demo_uses_the_builtin_tasks(tmp_path: Path) -> None:
    """Without payloads the demo says so, trains the built-in models, and ends with advice."""
    printed = _run(tmp_path, "--quick")
    assert "'shapes' and random weights instead" in printed
    assert "'phrases' and random weights instead" in printed
    rows = [line.split("|") for line in printed.splitlines() if line.startswith("| last")]
    assert [row[1].strip() for row in rows] == 2 * ["last 2 layers"] + 2 * ["last block"]
    assert "Next:" in printed


@pytest.mark.slow
def test_demo_learns_and_agrees_with_torch(tmp_path: Path) -> None:
    """The built-in phrases are learnt by both schemes, with PyTorch's losses."""
    printed = _run(tmp_path, "--task", "phrases")
    table = printed[printed.index("| scheme") :].splitlines()[2:4]
    for row in table:
        before, after, *_, error, _ = (cell.strip() for cell in row.split("|")[2:])
        assert float(before) < 0.6
        assert float(after) > 0.8
        assert float(error) < 1e-4
