"""ATen ops that reverse axes."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer, Value, axis_of, rule
from pockengine.ir.graph import type_of


@rule("flip.default")
def _flip(to: Legalizer, x: Node, axes: Sequence[int]) -> Value:
    """Joins the slices of each axis in reverse: a recurrent net's steps stay slices of x."""
    for axis in axes:
        shape = type_of(x).shape
        place = axis_of(axis, len(shape))
        extent = shape[place] if shape else 1
        if extent > 1:
            parts = [to.emit("slice", x, place, at, at + 1) for at in reversed(range(extent))]
            x = to.emit("cat", parts, place)
    return x
