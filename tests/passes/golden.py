"""The example in a pass's docstring, as graphs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from torch.fx import Graph

from pockengine.ir.text import parse, text

_EXAMPLE = re.compile(
    r"^before[^\n]*::\n(?P<before>.*?)^after[^\n]*::\n(?P<after>.*?return [^\n]*)",
    re.MULTILINE | re.DOTALL,
)


def example(run: Callable[..., Any]) -> tuple[Graph, str]:
    """The graph before a pass, and the text of the graph after it."""
    match = _EXAMPLE.search(inspect.cleandoc(run.__doc__ or ""))
    assert match is not None, f"{run.__name__}: no before and after"
    return parse(inspect.cleandoc(match["before"])), text(parse(inspect.cleandoc(match["after"])))
