"""README.md keeps its promises."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.documents import ROOT, run_page


def test_readme_example_runs_and_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example works as it stands, and its model separates the two classes."""
    for name in ("photos", "reviews.csv"):
        _own_data(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names = run_page(ROOT / "README.md")
    assert isinstance(names["loss"], float)
    assert names["loss"] < 0.4
    assert (tmp_path / "user.ckpt").exists()
    assert names["task"].classes == ("bad", "good")


def test_readme_shows_the_measured_table() -> None:
    """The table of results is the one that the experiment wrote."""
    table = (ROOT / "experiments" / "step_time" / "table.md").read_text().strip()
    assert table in (ROOT / "README.md").read_text()


def _own_data(path: Path) -> None:
    """What the reader has: a folder of pictures by class, or a CSV of texts."""
    if path.suffix:
        path.write_text("text,label\nwell made,good\nfell apart,bad\nlovely,good\npoor,bad\n")
        return
    for name in ("cat", "dog"):
        (path / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8)).save(path / name / f"{number}.jpg")
