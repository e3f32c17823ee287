"""README.md keeps its promises."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_readme_example_runs_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example works as it stands, and its model separates the two classes."""
    found = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(found[1], names)  # noqa: S102 - that it runs is what is tested
    assert isinstance(names["loss"], float)
    assert names["loss"] < 0.4
    assert (tmp_path / "user.ckpt").exists()


def test_readme_shows_the_measured_table() -> None:
    """The table of results is the one that the experiment wrote."""
    table = (ROOT / "experiments" / "step_time" / "table.md").read_text().strip()
    assert table in (ROOT / "README.md").read_text()
