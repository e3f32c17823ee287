"""Rules of masks, comparisons, choices and conversions."""

from __future__ import annotations

from functools import partial
from math import inf

from torch.fx import Node

from pockengine.ir.graph import Argument, infer, op_name, type_of
from pockengine.ir.ops import OPS
from pockengine.ir.types import DType
from pockengine.passes.simplify_rules.table import (
    RULES,
    Emitter,
    arguments,
    is_call,
    is_float,
    is_number,
    operand,
    rule,
)


@rule("where")
def _choose(to: Emitter, mask: Node, x: Argument, y: Argument) -> Node | None:
    """``where(m, x, x) -> x``, also if m is constant; ``where(not m, x, y) -> where(m, y, x)``."""
    if is_call(mask, "full"):
        x = y = x if arguments(mask)[1] else y
    if isinstance(x, Node) and x is y:
        return to.expand(x, infer(OPS["where"], (mask, x, y), {}).shape)
    return to.emit("where", operand(mask), y, x) if is_call(mask, "logical_not") else None


@rule("logical_and", "logical_or")
def _same_mask(to: Emitter, x: Argument, y: Argument) -> Node | None:
    """``m and m -> m``; ``m or m -> m``."""
    del to
    return x if x is y and isinstance(x, Node) else None


def _with_literal(neutral: bool, to: Emitter, m: Node, c: Argument) -> Node | None:
    """``m and True -> m``; ``m and False -> False``; likewise for or."""
    if not is_number(c) or type_of(m).dtype is not DType.BOOL:
        return None
    return m if bool(c) is neutral else to.emit("full", type_of(m).shape, bool(c), "bool")


RULES["logical_and"].append(partial(_with_literal, True))
RULES["logical_or"].append(partial(_with_literal, False))


@rule("logical_not")
def _not(to: Emitter, x: Node) -> Node | None:
    """``not (x == y) -> x != y``; ``not (x < y) -> x >= y`` where no NaN is; ``not not m -> m``."""
    if is_call(x, "logical_not"):
        return operand(x)
    exact = is_call(x, "eq", "ne")
    if not exact and (not is_call(x, *_NEGATED) or any(is_float(arg) for arg in arguments(x))):
        return None
    return to.emit(_NEGATED[op_name(x)], *arguments(x))


_NEGATED = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}


@rule("ne", "gt")
def _truth(to: Emitter, x: Node, c: Argument) -> Node | None:
    """``cast(m) != 0 -> m``; ``cast(m) > 0 -> m``."""
    del to
    m = operand(x) if is_call(x, "cast") else x
    found = is_number(c) and c == 0 and isinstance(m, Node) and type_of(m).dtype is DType.BOOL
    return m if found else None


@rule("gt")
def _any_above_lowest(to: Emitter, x: Node, c: Argument) -> Node | None:
    """``amax(cast(y != -inf)) > 0 -> amax(y) != -inf``: whether attention sees anything in a row.

    The greatest element is -inf if and only if all are; it is NaN, unlike -inf, if any is.
    """
    seen = operand(x) if is_call(x, "amax") and is_number(c) and c == 0 else None
    unlike = operand(seen) if is_call(seen, "cast") else None
    if not is_call(unlike, "ne") or arguments(unlike)[1] != -inf:
        return None
    return to.emit("ne", to.emit("amax", operand(unlike), *arguments(x)[1:]), -inf)


def _of_clamped(op: str, to: Emitter, z: Argument, c: Argument) -> Node | None:
    """``z <= c -> y <= c``, where y = clamp(z, low, high) is there already.

    So backward masks of ReLU and ReLU6 keep y, which the next layer keeps anyway, instead of z.

    Proof for low <= c < high and the comparisons <= and >: clamping is monotone, so z <= c gives
    y <= clamp(c) = c; and z > c gives y = high > c or y >= z > c. Likewise for low < c <= high and
    the comparisons >= and <. NaN stays NaN in y and compares false on both sides.
    """
    if not (isinstance(z, Node) and is_number(c)):
        return None
    for y, low, high in _clamps(z, -inf, inf):
        if (low <= c < high) if op in ("le", "gt") else (low < c <= high):
            return to.emit(op, y, c)
    return None


def _clamps(z: Node, low: float, high: float) -> list[tuple[Node, float, float]]:
    """The values that clamp z by numbers, with their bounds; the most clamped ones first."""
    found = []
    for y in z.users:
        if is_call(y, "maximum", "minimum") and arguments(y)[0] is z and is_number(arguments(y)[1]):
            limit = max if is_call(y, "maximum") else min
            bounds = limit(low, arguments(y)[1]), limit(high, arguments(y)[1])
            found += [*_clamps(y, *bounds), (y, *bounds)]
    return found


for _op in ("le", "gt", "ge", "lt"):
    RULES[_op].append(partial(_of_clamped, _op))


@rule("cast")
def _cast(to: Emitter, x: Node, dtype: str) -> Node | None:
    """``cast(x) -> x`` in its own dtype; ``cast(cast(x)) -> cast(x)`` if the inner is exact."""
    if type_of(x).dtype.value == dtype:
        return x
    if is_call(x, "cast") and type_of(x).dtype in _HOLDS.get(type_of(operand(x)).dtype, ()):
        return to.emit("cast", operand(x), dtype)
    return None


_WIDE = (DType.I32, DType.I64, DType.F16, DType.BF16, DType.F32)
_HOLDS = {
    DType.BOOL: (DType.U8, DType.I8, *_WIDE),
    DType.U8: _WIDE,
    DType.I8: _WIDE,
    DType.I32: (DType.I64,),
    DType.F16: (DType.F32,),
    DType.BF16: (DType.F32,),
}
