"""A kernel's loops with the range that they run over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pockengine.lower.nest import Expr, Stmt


@dataclass(frozen=True, slots=True)
class Work:
    """What a kernel does for units ``begin .. end`` of its range.

    Args:
        extent: units in all.
        grain: units that pay for handing them to another thread; 0: never split.
        body: (begin, end) -> statement.
    """

    extent: int
    grain: int
    body: Callable[[Expr, Expr], Stmt]
