"""The documentation runs, leads to what is there, and names what exists."""

from __future__ import annotations

import json
import re
import runpy
from importlib import import_module
from pathlib import Path

import pytest

import pockengine as pe
from experiments.step_time.against import PEERS
from tests.documents import DOCS, ROOT, anchors, blocks, links, run_page

PAGES = sorted(page for page in DOCS.rglob("*.md"))
GUIDES = [
    page
    for page in PAGES
    if page.parent.name == "guides" and page.stem != "first-runs"  # see test_first_runs.py
]
IDENTIFIERS = re.compile(r"^::: ([\w.]+)$", re.MULTILINE)


def _name(page: Path) -> str:
    return page.relative_to(DOCS).as_posix()


@pytest.mark.parametrize("page", GUIDES, ids=_name)
def test_a_guide_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of Python on the page works as it stands, in an empty folder."""
    assert blocks(page)
    monkeypatch.chdir(tmp_path)
    run_page(page)


def test_the_tutorial_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The tiny compiler, the real one and PyTorch agree; the sparse scheme takes less."""
    runpy.run_path(str(DOCS / "tutorial.py"), run_name="__main__")
    said = capsys.readouterr().out
    sizes = re.findall(r"(\d+) kernels, an arena of (\d+) bytes", said)
    (kernels, arena), (fewer, smaller) = [tuple(map(int, found)) for found in sizes]
    assert fewer < kernels
    assert smaller < arena
    assert said.count("loss: tiny") == 10


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_links(page: Path) -> None:
    """Links inside the documentation lead to a page, and to a heading on it."""
    for link in links(page):
        if re.match(r"[a-z]+://", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_navigation() -> None:
    """mkdocs.yml lists each page once, and no other."""
    listed = re.findall(
        r"^ +- (?:.*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE
    )
    assert sorted(listed) == [_name(page) for page in PAGES]


def test_the_reference_names_what_exists() -> None:
    """Every name of the reference can be imported, and every public name is in it."""
    listed = IDENTIFIERS.findall((DOCS / "api.md").read_text())
    assert len(set(listed)) == len(listed)
    for name in listed:
        parent, _, leaf = name.rpartition(".")
        module = import_module(parent)
        assert hasattr(module, leaf) or import_module(name), name
        assert getattr(module, leaf, module).__doc__, name
    told = {name.rpartition(".")[2] for name in listed}
    assert set(pe.__all__) <= told


def test_the_figure_of_the_peers_shows_the_results() -> None:
    """It is drawn of what was measured, and the committed picture is that of the results."""
    drawn = runpy.run_path(str(DOCS / "figures" / "peers.py"))
    assert list(drawn["NAMES"]) == list(PEERS)
    eager = {"ms": 30.0, "ours_ms": 10.0}
    row = {"case": "a case", "threads": 1, "date": "2026-01-01", "ours": {"ms": 10.0}}
    row["peers"] = {"eager": eager, "mnn": {"failure": "none"}}
    told = drawn["svg"]({"peers": {"a": row}, "machine": {"processor": "a core"}})
    assert all(part in told for part in ("a case", "10.0 ms", "3.00x", "not available", "a core"))
    result = json.loads(drawn["RESULT"].read_text(encoding="utf-8"))
    if result.get("peers"):
        assert drawn["FIGURE"].read_text(encoding="utf-8") == drawn["svg"](result)


def test_the_figure_shows_the_results() -> None:
    """The committed picture is what the script draws of the committed results."""
    drawn = runpy.run_path(str(DOCS / "figures" / "step_time.py"))
    result = json.loads(drawn["RESULT"].read_text(encoding="utf-8"))
    assert drawn["FIGURE"].read_text(encoding="utf-8") == drawn["svg"](result)
    assert all(case["case"] in drawn["svg"](result) for case in result["speed"])
