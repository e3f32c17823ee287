"""The pages of the documentation as tests see them: their Python, links and headings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def run_page(page: Path) -> dict[str, Any]:
    """Run all of a page's Python, as a reader would from top to bottom; its names."""
    text = page.read_text(encoding="utf-8")
    names: dict[str, Any] = {"__name__": "page"}
    for block in _BLOCK.finditer(text):
        line = text[: block.start()].count("\n") + 1  # so that errors name the page's line
        code = compile("\n" * line + block[1], str(page), "exec")
        exec(code, names)  # noqa: S102 - that it runs is what is tested
    return names


def blocks(page: Path) -> list[str]:
    """A page's Python."""
    return _BLOCK.findall(page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Where a page leads, but for code."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return [inner or picture for inner, picture in _LINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as mkdocs makes them."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    slugs = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in _HEADING.findall(text))
    return {re.sub(r"[-\s]+", "-", slug) for slug in slugs}
