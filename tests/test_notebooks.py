"""The notebooks run from top to bottom: their cells here, and in a kernel where there is one."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from tests.documents import DOCS

NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))


def _cells(notebook: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in found if cell["cell_type"] == "code"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell runs after the ones before it, and what is committed has no outputs."""
    monkeypatch.chdir(tmp_path)
    mpl.use("agg")
    names: dict[str, Any] = {}
    for number, cell in enumerate(_cells(notebook)):
        assert not cell["outputs"], "clear the outputs"
        exec(compile("".join(cell["source"]), f"{notebook.name} {number}", "exec"), names)  # noqa: S102
    assert names["accuracy"] > 0.6
    names["plt"].close("all")


@pytest.mark.slow
@pytest.mark.skipif(
    not (find_spec("nbclient") and find_spec("ipykernel")), reason="nbclient or ipykernel missing"
)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_kernel(notebook: Path) -> None:
    """A Jupyter kernel runs it without an error."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    nbclient.NotebookClient(nbformat.read(notebook, as_version=4), timeout=300).execute()
