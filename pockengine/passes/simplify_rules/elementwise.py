"""Rules that hold for every elementwise op."""

from __future__ import annotations

from functools import partial

import torch
from torch.fx import Node

from pockengine.ir.graph import Argument, infer, type_of
from pockengine.ir.ops import OPS
from pockengine.passes.simplify_rules.table import (
    RULES,
    Emitter,
    arguments,
    is_call,
    is_float,
    operand,
)

UNARY = (
    "neg exp expm1 log log1p sqrt rsqrt tanh sigmoid erf sin cos abs sign floor round logical_not"
).split()
BINARY = "add sub mul div pow maximum minimum eq ne lt le gt ge logical_and logical_or".split()


def _fold(op: str, to: Emitter, *args: Argument) -> Node | None:
    """``f(full(c), d) -> full(f(c, d))``."""
    if not all(is_call(arg, "full") for arg in args if isinstance(arg, Node)):
        return None
    scalars = [_scalar(arg) if isinstance(arg, Node) else arg for arg in args]
    found = infer(OPS[op], args, {})
    return to.emit("full", found.shape, OPS[op].reference(*scalars).item(), found.dtype.value)


def _immediate(op: str, to: Emitter, *args: Argument) -> Node | None:
    """``f(x, full(c)) -> f(x, c)``."""
    for place, arg in enumerate(args):
        if is_call(arg, "full") and (op, place) != ("where", 0):
            fewer = (*args[:place], _scalar(arg).item(), *args[place + 1 :])
            if infer(OPS[op], fewer, {}) == infer(OPS[op], args, {}):
                return to.emit(op, *fewer)
    return None


def _exact(op: str, to: Emitter, *args: Argument) -> Node | None:
    """``f(x, 1) -> f(x, 1.0)`` of a float x."""
    if not any(is_float(arg) for arg in args) or not any(isinstance(arg, int) for arg in args):
        return None
    return to.emit(op, *(float(arg) if isinstance(arg, int) else arg for arg in args))


def _narrow(op: str, to: Emitter, *args: Argument) -> Node | None:
    """``f(expand(x), y) -> f(x, y)``, expanded if the shape needs it."""
    if not any(is_call(arg, "expand") for arg in args):
        return None
    thin = tuple(operand(arg) if is_call(arg, "expand") else arg for arg in args)
    found, wanted = infer(OPS[op], thin, {}), infer(OPS[op], args, {})
    return to.expand(to.emit(op, *thin), wanted.shape) if found.dtype is wanted.dtype else None


def _scalar(full: Node) -> torch.Tensor:
    """The element of a ``full``, in its dtype."""
    return torch.full((), arguments(full)[1], dtype=type_of(full).dtype.torch)


for _op in (*UNARY, *BINARY, "where", "cast"):
    _both = (_immediate, _exact) if _op in (*BINARY, "where") else ()
    RULES[_op].extend(partial(each, _op) for each in (_fold, *_both, _narrow))
