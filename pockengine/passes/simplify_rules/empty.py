"""Values without elements, and what ops make of them: no kernel computes from nothing."""

from __future__ import annotations

from torch.fx import Node

from pockengine.ir.graph import Argument, type_of
from pockengine.ir.ops import OPS, Kind
from pockengine.ir.types import TensorType
from pockengine.passes.simplify_rules.table import Emitter

_MADE_OF_NOTHING = {"sum": 0, "prod": 1, "scatter_rows": 0}


def without_elements(
    to: Emitter, op: str, args: tuple[Argument, ...], wanted: TensorType
) -> Node | None:
    """``exp(x) -> full``, where x has no elements; ``sum(x) -> full``, ``matmul(x, y) -> full``."""
    kind = OPS[op].kind
    if op == "full" or kind is Kind.UPDATE:
        return None
    if not wanted.size:
        return None if kind is Kind.VIEW else _full(to, wanted, 0)
    if op == "cat":
        pieces, axis = args
        assert isinstance(pieces, (tuple, list))
        left = [piece for piece in pieces if isinstance(piece, Node) and type_of(piece).size]
        return to.emit("cat", tuple(left), axis) if len(left) < len(pieces) else None
    operands = [each for each in args if isinstance(each, Node)]
    if not any(not type_of(operand).size for operand in operands):
        return None
    if op == "pad":
        value = args[3]
        assert isinstance(value, (int, float))
        return _full(to, wanted, value)
    if kind is Kind.CONTRACT or op in _MADE_OF_NOTHING:
        return _full(to, wanted, _MADE_OF_NOTHING.get(op, 0))
    return None


def _full(to: Emitter, wanted: TensorType, value: float) -> Node:
    typed = float(value) if wanted.dtype.is_float else int(value)
    return to.emit("full", wanted.shape, typed, wanted.dtype.value)
