"""`pockengine inspect --html`: one page with layers, kernels and the memory map, for any browser.

It holds its style, its script and its data itself, and fetches nothing.
"""

from __future__ import annotations

import html
import json
from importlib import resources
from pathlib import Path
from string import Template

from pockengine.errors import InputError
from pockengine.report.inspect_graph import Inspection
from pockengine.report.page.content import content


def write_page(found: Inspection, path: Path, *, model: str, scheme: str | None) -> None:
    """Write the page of a prepared trainer.

    Args:
        found: the trainer.
        path: of the file; what is there is replaced.
        model: what the user calls the model.
        scheme: what the user calls the scheme; None for the model's own ``requires_grad``.

    Raises:
        InputError: the file cannot be written.
    """
    text = page(found, model=model, scheme=scheme)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            where=f"--html {path}",
            found=str(error.strerror),
            needed="a place that can be written",
            remedy="Name another file",
        ) from error


def page(found: Inspection, *, model: str, scheme: str | None) -> str:
    """The page as text; arguments as ``write_page``."""
    files = resources.files(__package__)
    data = json.dumps(content(found, model=model, scheme=scheme), separators=(",", ":"))
    return Template((files / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{model} - PockEngine"),
        style=(files / "page.css").read_text(encoding="utf-8"),
        script=(files / "page.js").read_text(encoding="utf-8"),
        data=data.replace("<", "\\u003c"),  # no text of a model ends the script
    )
