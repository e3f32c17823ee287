"""Elementwise ops as TIR expressions: one row an op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import copysign

from tvm import tirx

from pockengine.ir.types import DType
from pockengine.lower import math
from pockengine.lower.arctangent import atan
from pockengine.lower.nest import Expr
from pockengine.lower.power import power
from pockengine.lower.remainder import fmod

COMPUTE = {  # how elements are held in registers
    DType.F32: "float32",
    DType.I8: "int8",
    DType.I32: "int32",
    DType.I64: "int64",
    DType.U8: "uint8",
    DType.BOOL: "bool",
}
_OF_KIND = {kind: dtype for dtype, kind in COMPUTE.items()}
STORED = {**COMPUTE, DType.BOOL: "uint8"}  # how they lie in memory


def constant(value: float, dtype: DType, lanes: int) -> Expr:
    """A number in every lane."""
    if dtype is DType.BOOL:
        scalar = tirx.IntImm("bool", int(bool(value)))
    elif dtype.is_float:
        scalar = _float(float(value))
    else:
        scalar = tirx.IntImm(COMPUTE[dtype], int(value))
    return scalar if lanes == 1 else tirx.Broadcast(scalar, lanes)


def _float(value: float) -> Expr:
    if value != value:  # noqa: PLR0124 - NaN is what differs from itself
        return tirx.reinterpret("float32", tirx.IntImm("int32", 0x7FC00000))
    if abs(value) == float("inf"):
        return tirx.reinterpret(
            "float32", tirx.IntImm("int32", 0x7F800000 if value > 0 else -0x800000)
        )
    return tirx.FloatImm("float32", value)


def convert(value: Expr, source: DType, wanted: DType, lanes: int) -> Expr:
    """An element in another type, as torch converts: to bool is ``!= 0``, to integers truncates."""
    if source is wanted:
        return value
    if wanted is DType.BOOL:
        zero = constant(0, source, lanes)
        return differs(value, zero) if source.is_float else tirx.NE(value, zero)
    if source is DType.I64 and wanted.is_float:
        return _float_of(value, lanes)
    kind = COMPUTE[wanted] if lanes == 1 else f"{COMPUTE[wanted]}x{lanes}"
    if source is DType.BOOL:
        return tirx.Select(value, constant(1, wanted, lanes), constant(0, wanted, lanes))
    return tirx.Cast(kind, value)


def _float_of(value: Expr, lanes: int) -> Expr:
    """float32 of an int64, rounded once, without the library call it is on 32-bit processors.

    Two halves of 24 bits are exact in float32, so only their sum rounds. Beyond 48 bits the lowest
    15 are shifted out; one bit keeps whether any was set, which is all that rounding needs of them.
    """

    def whole(number: int) -> Expr:
        return constant(number, DType.I64, lanes)

    def real(part: Expr) -> Expr:
        narrow, wide = (
            ("int32", "float32") if lanes == 1 else (f"int32x{lanes}", f"float32x{lanes}")
        )
        return tirx.Cast(wide, tirx.Cast(narrow, part))

    is_big = tirx.Or(tirx.GE(value, whole(1 << 48)), tirx.LT(value, whole(-(1 << 48))))
    lost = tirx.Select(tirx.EQ(value & whole(0x7FFF), whole(0)), whole(0), whole(1))
    small = tirx.Select(is_big, (value >> whole(15)) | lost, value)
    upper = tirx.Mul(real(small >> whole(24)), constant(1 << 24, DType.F32, lanes))
    total = tirx.Add(upper, real(small & whole(0xFFFFFF)))
    scale = tirx.Select(is_big, constant(1 << 15, DType.F32, lanes), constant(1, DType.F32, lanes))
    return tirx.Mul(total, scale)


def differs(a: Expr, b: Expr) -> Expr:
    """Compare floats, a != b: true where either is NaN, as in PyTorch; TVM's NE is false there."""
    unordered = tirx.Or(math.is_nan(a), math.is_nan(b))
    return tirx.Or(tirx.Or(tirx.LT(a, b), tirx.GT(a, b)), unordered)


def _minus(a: Expr, b: Expr) -> Expr:
    """Difference of floats as a sum, which LLVM turns back.

    TVM's simplifier takes x - x for 0, also beside NaN, and (x + y) - x for y, without rounding.
    """
    return tirx.Add(a, tirx.Mul(b, math.splat(-1.0, b)))


def _opaque(relation: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Expr], Expr]:
    """A comparison of floats whose operands TVM's logic does not see.

    It takes x == x for true, and one of a < b and a >= b, which are both false beside NaN.
    """
    return lambda a, b: negated(negated(relation(a, b)))


def _same(a: Expr, b: Expr) -> Expr:
    return tirx.And(tirx.LE(a, b), tirx.GE(a, b))


def _kept(operation: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Expr], Expr]:
    """An operation of floats whose zeros TVM does not see: it takes 0 * NaN for 0."""
    return lambda a, b: operation(_hidden_zero(a), _hidden_zero(b))


def _hidden_zero(x: Expr) -> Expr:
    if not isinstance(x, tirx.FloatImm) or x.value != 0:
        return x
    minus = tirx.reinterpret("float32", tirx.IntImm("int32", -0x80000000))
    return minus if copysign(1.0, x.value) < 0 else tirx.Mul(minus, tirx.FloatImm("float32", -1.0))


def _divisor(b: Expr) -> Expr:
    """An integer to divide by: one instead of zero, which would stop the process."""
    one, zero = (constant(number, _OF_KIND[_scalar(b)], math.lanes_of(b)) for number in (1, 0))
    return tirx.Select(_equal(b, zero), one, b)


def _scalar(x: Expr) -> str:
    return str(x.ty.dtype).split("x", maxsplit=1)[0]


def negated(x: Expr) -> Expr:
    """Not x, said so that no comparison is turned around: not (a < b) is no a >= b beside NaN."""
    lanes = math.lanes_of(x)
    number = tirx.Cast("int32" if lanes == 1 else f"int32x{lanes}", x)
    return tirx.EQ(number, constant(0, DType.I32, lanes))


def _either(a: Expr, b: Expr) -> Expr:
    """Booleans that differ."""
    return tirx.Or(tirx.And(a, negated(b)), tirx.And(negated(a), b))


def _widened(x: Expr) -> Expr:
    """Bytes as int32: TVM's simplifier asks for a uint8 below zero where one is compared."""
    if _OF_KIND[_scalar(x)] not in (DType.U8, DType.I8):
        return x
    lanes = math.lanes_of(x)
    return tirx.Cast("int32" if lanes == 1 else f"int32x{lanes}", x)


def _compared(relation: Callable[[Expr, Expr], Expr]) -> Callable[[Expr, Expr], Expr]:
    return lambda a, b: relation(_widened(a), _widened(b))


_less, _equal = _compared(tirx.LT), _compared(tirx.EQ)


def _integer_abs(x: Expr) -> Expr:
    return x if _scalar(x) == "uint8" else tirx.Max(x, tirx.Sub(tirx.Sub(x, x), x))


def _integer_sign(x: Expr) -> Expr:
    one, zero = (constant(number, _OF_KIND[_scalar(x)], math.lanes_of(x)) for number in (1, 0))
    return tirx.Select(_less(zero, x), one, tirx.Select(_less(x, zero), tirx.Sub(zero, one), zero))


Row = Callable[..., Expr]
FLOAT_ROWS: dict[str, Row] = {
    "neg": lambda x: tirx.Mul(x, math.splat(-1.0, x)),
    "exp": math.exp,
    "expm1": math.expm1,
    "log": math.log,
    "log1p": math.log1p,
    "sqrt": math.sqrt,
    "rsqrt": math.rsqrt,
    "tanh": math.tanh,
    "sigmoid": math.sigmoid,
    "erf": math.erf,
    "sin": math.sin,
    "cos": math.cos,
    "atan": atan,
    "fmod": fmod,
    "abs": math.absolute,
    "sign": math.sign,
    "floor": math.floor,
    "round": math.round_half_even,
    "pow": power,
    "maximum": math.maximum,
    "minimum": math.minimum,
    "mul": _kept(tirx.Mul),
    "div": _kept(tirx.Div),
    "sub": _kept(_minus),
    "ne": differs,
    "eq": _opaque(_same),
    "lt": _opaque(tirx.LT),
    "le": _opaque(tirx.LE),
    "gt": _opaque(tirx.GT),
    "ge": _opaque(tirx.GE),
}
INTEGER_ROWS: dict[str, Row] = {
    "neg": lambda x: tirx.Sub(tirx.Sub(x, x), x),
    "maximum": tirx.Max,
    "minimum": tirx.Min,
    "abs": _integer_abs,
    "sign": _integer_sign,
    "fmod": lambda a, b: tirx.truncmod(a, _divisor(b)),
    "quotient": lambda a, b: tirx.truncdiv(a, _divisor(b)),
    "bitand": lambda a, b: a & b,
    "bitor": lambda a, b: a | b,
    "bitxor": lambda a, b: a ^ b,
    "eq": _equal,
    "ne": _compared(tirx.NE),
    "lt": _less,
    "le": _compared(tirx.LE),
    "gt": _compared(tirx.GT),
    "ge": _compared(tirx.GE),
}
BOOL_ROWS: dict[str, Row] = {  # LLVM has no instruction that compares TVM's booleans
    "eq": lambda a, b: negated(_either(a, b)),
    "ne": _either,
    "lt": lambda a, b: tirx.And(negated(a), b),
    "le": lambda a, b: tirx.Or(negated(a), b),
    "gt": lambda a, b: tirx.And(a, negated(b)),
    "ge": lambda a, b: tirx.Or(a, negated(b)),
    "maximum": tirx.Or,
    "minimum": tirx.And,
    "mul": tirx.And,
    "bitand": tirx.And,
    "bitor": tirx.Or,
    "bitxor": _either,
}
ROWS: dict[str, Row] = {
    "add": tirx.Add,
    "sub": tirx.Sub,
    "mul": tirx.Mul,
    "logical_and": tirx.And,
    "logical_or": tirx.Or,
    "logical_not": negated,
    "where": tirx.Select,
    "copy": lambda x: x,
}


def apply(name: str, operands: Sequence[Expr], dtype: DType) -> Expr:
    """The expression of an op on operands that all have its operand dtype and the same lanes."""
    rows = FLOAT_ROWS if dtype.is_float else BOOL_ROWS if dtype is DType.BOOL else INTEGER_ROWS
    row = rows.get(name) or ROWS[name]
    return row(*operands)


EXPENSIVE = frozenset(
    "exp expm1 log log1p tanh sigmoid erf sin cos atan pow fmod div sqrt rsqrt".split()
)
