"""Rules of sums, products and negation."""

from __future__ import annotations

from functools import partial
from math import isfinite

from torch.fx import Node

from pockengine.ir.graph import Argument, op_name, type_of
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

_MIRRORED = {  # f(c, x) = g(x, c)
    **{op: op for op in "add mul maximum minimum logical_and logical_or eq ne".split()},
    "lt": "gt",
    "le": "ge",
    "gt": "lt",
    "ge": "le",
}


def _number_last(mirrored: str, to: Emitter, c: Argument, x: Argument) -> Node | None:
    """``f(c, x) -> g(x, c)``, where g is f with its operands exchanged."""
    return to.emit(mirrored, x, c) if is_number(c) else None


for _op, _mirror in _MIRRORED.items():
    RULES[_op].append(partial(_number_last, _mirror))


def _keeps_type(x: Argument, c: Argument) -> bool:
    """Whether c is a number that leaves the dtype of sums and products with x as it is."""
    integer = isinstance(x, Node) and type_of(x).dtype in (DType.I32, DType.I64)
    return is_float(x) or integer if isinstance(c, int) else isinstance(c, float) and is_float(x)


@rule("mul")
def _mul_number(to: Emitter, x: Node, c: Argument) -> Node | None:
    """``x * 1 -> x``; ``x * -1 -> -x``; ``(x * d) * c -> x * (d * c)``; ``-x * c -> x * -c``."""
    if not _keeps_type(x, c):
        return None
    if c == 1:
        return x
    if c == -1:
        return to.emit("neg", x)
    if is_call(x, "neg"):
        return to.emit("mul", operand(x), -c)
    if is_call(x, "mul") and is_number(arguments(x)[1]) and _safe(arguments(x)[1] * c):
        return to.emit("mul", operand(x), arguments(x)[1] * c)
    return None


@rule("mul")
def _mul_under_view(to: Emitter, x: Node, c: Argument) -> Node | None:
    """``view(x) * c -> view(x * c)``, where nothing else reads x: there its producer multiplies."""
    if not (is_number(c) and is_call(x, "reshape", "permute") and to.is_read_once(x)):
        return None
    source, how = arguments(x)
    fits = source.op == "call_function" and to.is_read_once(source) and _keeps_type(source, c)
    return to.emit(op_name(x), to.emit("mul", source, c), how) if fits else None


def _safe(number: float) -> bool:
    """Whether a merged factor is far from overflow and underflow in every dtype's sense."""
    return isinstance(number, int) or 1e-30 < abs(number) < 1e30


@rule("add")
def _add_number(to: Emitter, x: Node, c: Argument) -> Node | None:
    """``x + 0 -> x``; ``(x + d) + c -> x + (d + c)``."""
    if not _keeps_type(x, c):
        return None
    if c == 0:
        return x
    if is_call(x, "add") and is_number(arguments(x)[1]) and isfinite(arguments(x)[1] + c):
        return to.emit("add", operand(x), arguments(x)[1] + c)
    return None


@rule("sub")
def _sub_number(to: Emitter, x: Argument, c: Argument) -> Node | None:
    """``x - c -> x + -c``; ``0 - x -> -x``."""
    if _keeps_type(x, c):
        return to.emit("add", x, -c)
    return to.emit("neg", c) if is_number(x) and x == 0 and _keeps_type(c, x) else None


@rule("div")
def _div_number(to: Emitter, x: Argument, c: Argument) -> Node | None:
    """``x / c -> x * (1 / c)``."""
    if is_number(c) and is_float(x) and 1e-30 < abs(c) < 1e30:
        return to.emit("mul", x, 1.0 / c)
    return None


@rule("mul")
def _both_negative(to: Emitter, x: Argument, y: Argument) -> Node | None:
    """``-x * -y -> x * y``."""
    if is_call(x, "neg") and is_call(y, "neg"):
        return to.emit("mul", operand(x), operand(y))
    return None


@rule("add")
def _add_negative(to: Emitter, x: Argument, y: Argument) -> Node | None:
    """``x + -y -> x - y``; ``-x + y -> y - x``."""
    if is_call(y, "neg"):
        return to.emit("sub", x, operand(y))
    return to.emit("sub", y, operand(x)) if is_call(x, "neg") and isinstance(y, Node) else None


@rule("sub")
def _sub_negative(to: Emitter, x: Argument, y: Argument) -> Node | None:
    """``x - -y -> x + y``."""
    return to.emit("add", x, operand(y)) if is_call(y, "neg") else None


@rule("neg")
def _negate(to: Emitter, x: Node) -> Node | None:
    """``-(-x) -> x``; ``-(x - y) -> y - x``; ``-(x * c) -> x * -c``."""
    if is_call(x, "neg"):
        return operand(x)
    if is_call(x, "sub") and to.is_read_once(x):
        return to.emit("sub", arguments(x)[1], operand(x))
    if is_call(x, "mul") and is_number(arguments(x)[1]) and to.is_read_once(x):
        return to.emit("mul", operand(x), -arguments(x)[1])
    return None
