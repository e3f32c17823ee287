"""What mkdocs shows that is written elsewhere: README.md, CONTRIBUTING.md, the tutorial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHOWN = {"<!-- README.md -->": "README.md", "<!-- CONTRIBUTING.md -->": "CONTRIBUTING.md"}
CODE = {"<!-- docs/tutorial.py -->": "docs/tutorial.py"}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put files in the place of their marks."""
    for mark, name in SHOWN.items():
        if mark in markdown:
            text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
            markdown = markdown.replace(mark, text)
    for mark, name in CODE.items():
        if mark in markdown:
            text = (ROOT / name).read_text(encoding="utf-8")
            markdown = markdown.replace(mark, f"```python\n{text}```")
    return markdown
