"""Values without elements, and what ops make of them: no kernel computes from nothing."""

from __future__ import annotations

from torch.fx import Node

from pockengine.ir.graph import Argument, type_of
from pockengine.ir.ops import OPS, Kind
from pockengine.ir.types import TensorType
from pockengine.passes.simplify_rules.table import Emitter

_MADE_OF_NOTHING = {"sum": 0, "prod": 1, "invert_index": 0, "sum_rows": 0}


def without_elements(
    to: Emitter, op: str, args: tuple[Argument, ...], wanted: TensorType
) -> Node | None:
    """``exp(x) -> full``, where x has no elements; ``sum(x) -> full``, ``matmul(x, y) -> full``."""
    kind = OPS[op].kind
    if op == "full" or kind is Kind.UPDATE or (kind is Kind.VIEW and not wanted.size):
        return None
    if not wanted.size:
        return _full(to, wanted, 0)
    operands = [each for each in args if isinstance(each, Node)]
    if op == "cat":
        return _joined(to, *args)
    if all(type_of(operand).size for operand in operands):
        return None
    value = args[3] if op == "pad" else 0 if kind is Kind.CONTRACT else _MADE_OF_NOTHING.get(op)
    return _full(to, wanted, value) if isinstance(value, (int, float)) else None


def _joined(to: Emitter, pieces: Argument, axis: Argument) -> Node | None:
    """``cat(x, y) -> cat(y)``, where x has no elements."""
    assert isinstance(pieces, (tuple, list))
    left = [piece for piece in pieces if isinstance(piece, Node) and type_of(piece).size]
    return to.emit("cat", tuple(left), axis) if len(left) < len(pieces) else None


def _full(to: Emitter, wanted: TensorType, value: float) -> Node:
    typed = float(value) if wanted.dtype.is_float else int(value)
    return to.emit("full", wanted.shape, typed, wanted.dtype.value)
