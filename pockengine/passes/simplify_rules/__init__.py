"""The rules of ``simplify``: op -> functions of a call's arguments that give a simpler value."""

from pockengine.passes.simplify_rules import (
    arithmetic,
    choice,
    contraction,
    elementwise,
    shape,
    sums,
)
from pockengine.passes.simplify_rules.table import RULES

__all__ = ["RULES", "arithmetic", "choice", "contraction", "elementwise", "shape", "sums"]
