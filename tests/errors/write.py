"""Write docs/errors.md from the cases: ``python -m tests.errors.write``."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from pockengine import errors
from pockengine.errors import PockEngineError
from tests.errors.cases import CASES
from tests.errors.mistake import Mistake

PAGE: Final = Path(__file__).parents[2] / "docs" / "errors.md"
KINDS: Final = tuple(errors.PockEngineError.__subclasses__())
_SPECIAL = re.compile(r"([\\`*_<>\[\]|#])")

HEAD = """\
# Errors

Every mistake that PockEngine finds is a `PockEngineError` of one of the classes below, all in
`pockengine.errors`. Its message is one line, `where: found; needed. remedy`, and these four are
attributes of the error too. What a message says was not changed, was not.

The mistakes below are made by a test, and these are the messages they give; `FOLDER` stands for a
folder of yours. `python -m tests.errors.write` writes this page.
"""


def failure(mistake: Mistake, folder: Path) -> PockEngineError:
    """The error that a mistake gives; any other exception comes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own
        try:
            mistake.make(folder)
        except PockEngineError as error:
            return error
    raise AssertionError(f"{mistake.name} is no mistake any more")


def entry(mistake: Mistake, error: PockEngineError, folder: Path) -> str:
    """The mistake and its message, as they stand on the page."""
    message = re.sub(r"\bline \d+", "line 7", str(error).replace(str(folder), "FOLDER"))
    escaped = _SPECIAL.sub(r"\\\1", message)
    return f"{mistake.told}\n\n> {escaped}\n"


def heading(kind: type[PockEngineError]) -> str:
    """A class's title and what it means."""
    return f"## {kind.__name__}\n\n{(kind.__doc__ or '').strip()}\n"


def ordered() -> Iterator[tuple[type[PockEngineError], list[Mistake]]]:
    """Mistakes by class, as listed."""
    by_kind = sorted(CASES, key=lambda each: KINDS.index(each.kind))
    for kind, found in groupby(by_kind, key=lambda each: each.kind):
        yield kind, list(found)


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for kind, mistakes in ordered():
        parts.append(heading(kind))
        for mistake in mistakes:
            with tempfile.TemporaryDirectory() as folder:
                parts.append(entry(mistake, failure(mistake, Path(folder)), Path(folder)))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
