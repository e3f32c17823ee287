"""ATen's histogram of evenly spaced bins."""

from __future__ import annotations

from math import inf

import torch
from torch.fx import Node

from pockengine.frontend.rules.table import Legalizer, Value, rule
from pockengine.ir.graph import type_of
from pockengine.ir.types import DType


@rule("histc.default")
def _histc(to: Legalizer, x: Node, bins: int = 100, *edges: float, **named: float) -> Value:
    low, high = _edges(*edges, **named)
    count = type_of(x).size
    flat = to.reshape(to.cast(x, DType.F32), (count,))
    inside = to.emit("logical_and", to.emit("ge", flat, low), to.emit("le", flat, high))
    share = to.emit("mul", to.emit("sub", flat, low), float(bins))
    place = to.emit("div", share, float(torch.tensor(high) - torch.tensor(low)))
    place = to.cast(to.emit("where", inside, place, 0.0), DType.I64)
    last = to.emit("maximum", to.emit("minimum", place, bins - 1), 0)  # it holds its right edge
    number = to.emit("where", inside, last, bins)  # what lies outside has a bin of its own
    begin = to.emit("slice", to.emit("invert_index", number, bins + 1), 0, 0, bins + 1)
    ends, starts = to.emit("slice", begin, 0, 1, bins + 1), to.emit("slice", begin, 0, 0, bins)
    return to.cast(to.emit("sub", ends, starts), to.dtype)


def _edges(*given: float, **named: float) -> tuple[float, float]:
    """The outer edges, as float32 has them.

    Raises:
        NotImplementedError: there are none: PyTorch takes the data's extrema then.
    """
    low, high = (
        named.get(name, given[place] if place < len(given) else 0.0)
        for place, name in enumerate(("min", "max"))
    )
    if not -inf < low < high < inf:
        raise NotImplementedError("histc without min < max: with bins that the data decides")
    return tuple(torch.tensor([low, high], dtype=torch.float32).tolist())
