"""How partial results combine: sums and extrema, in lanes and across them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.fx import Node
from tvm import tirx

from pockengine.ir.graph import op_name, type_of
from pockengine.ir.types import DType
from pockengine.lower import elementwise, math
from pockengine.lower.nest import Buffer, Expr, Stmt, block, const, held
from pockengine.lower.register_tiles import vector_pieces

_ROWS = {"sum_rows": "sum", "max_rows": "amax"}
NEUTRAL = {"sum": 0.0, "prod": 1.0, "amax": float("-inf"), "amin": float("inf")}


@dataclass(frozen=True, slots=True)
class Reduction:
    """A reduction op: its neutral element and how two partial results combine."""

    node: Node

    @property
    def source(self) -> Node:
        """What is reduced."""
        found = self.node.args[0]
        assert isinstance(found, Node)
        return found

    @property
    def how(self) -> str:
        """The reduction of elements that this is."""
        name = op_name(self.node)
        return _ROWS.get(name, name)

    @property
    def dtype(self) -> DType:
        """The dtype of partial results."""
        return type_of(self.node).dtype

    def neutral(self, lanes: int) -> Expr:
        """The value that changes nothing."""
        value: Any = NEUTRAL[self.how]
        if not self.dtype.is_float:
            bound_of = 2 ** (self.dtype.bits - 1) - 1
            least = {"sum": 0, "prod": 1, "amax": -bound_of - 1, "amin": bound_of}
            value = least[self.how]
        return elementwise.constant(value, self.dtype, lanes)

    def combine(self, a: Expr, b: Expr) -> Expr:
        """Two partial results as one."""
        if self.how == "sum":
            return tirx.Add(a, b)
        if self.how == "prod":
            return tirx.Mul(a, b)
        if self.dtype.is_float:
            return math.maximum(a, b) if self.how == "amax" else math.minimum(a, b)
        return tirx.Max(a, b) if self.how == "amax" else tirx.Min(a, b)

    def local_dtype(self, lanes: int) -> str:
        """The TIR dtype of an accumulator."""
        kind = elementwise.COMPUTE[self.dtype]
        return kind if lanes == 1 else f"{kind}x{lanes}"


def fold(value: Expr, lanes: int, combine: Callable[[Expr, Expr], Expr]) -> tuple[list[Stmt], Expr]:
    """The lanes of a vector combined pairwise to one scalar."""
    statements: list[Stmt] = []
    while lanes > 1:
        lanes //= 2
        low, high = (
            tirx.Shuffle([value], [tirx.IntImm("int32", i) for i in range(first, first + lanes)])
            for first in (0, lanes)
        )
        made, value = held("half", combine(low, high))
        statements += made
    return statements, value


def accumulate(total: Buffer, reduction: Reduction, value: Expr) -> Stmt:
    """Join a value to the one element of an accumulator."""
    made, sum_of = held("sum", reduction.combine(tirx.BufferLoad(total, [const(0)]), value))
    return block(*made, tirx.BufferStore(total, sum_of, [const(0)]))


def joined(results: list[Expr], combine: Callable[[Expr, Expr], Expr]) -> tuple[list[Stmt], Expr]:
    """Several scalars combined to one, bound to a variable."""
    statements: list[Stmt] = []
    total = results[0]
    for result in results[1:]:
        made, total = held("result", combine(total, result))
        statements += made
    return statements, total


def run_widths(extent: int, lanes: int) -> list[int]:
    """The distinct vector widths that a run of some extent uses, widest first."""
    return sorted(set(vector_pieces(extent, lanes)), reverse=True)
