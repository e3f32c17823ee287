"""How each ATen op is said in the closed vocabulary: one row an op, one file a family."""

from __future__ import annotations

from pockengine.frontend.rules import (  # noqa: F401 - importing a family enters its rows
    border,
    contract,
    create,
    diagonal,
    elementary,
    elementwise,
    histogram,
    index,
    normalize,
    numbers,
    order,
    pooling,
    random,
    reduce,
    reverse,
    scatter,
    shape,
    strided,
)
from pockengine.frontend.rules.table import RULES, Legalizer, Value

__all__ = ["RULES", "Legalizer", "Value"]
