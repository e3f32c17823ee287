"""Loop nests written down directly as TIR: a few constructors that keep emitters readable.

Offsets are int64 element counts into flat buffers; ``lanes`` is the number of neighbouring float32
elements a vector expression holds, 1 for a scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm import tirx

Expr: TypeAlias = Any
"""A ``tirx`` expression (TVM ships no types)."""
Stmt: TypeAlias = Any
"""A ``tirx`` statement."""
Buffer: TypeAlias = Any
"""A ``tirx`` buffer."""


def const(value: int) -> Expr:
    """int64 constant."""
    return tirx.IntImm("int64", value)


def operand(name: str, elements: int, dtype: str = "float32") -> Buffer:
    """Flat buffer of ``elements`` elements that becomes a pointer parameter of the kernel."""
    return tirx.decl_buffer((elements,), dtype, name=name)


def local(name: str, elements: int, lanes: int = 1, dtype: str = "float32") -> Buffer:
    """Buffer on the stack, of ``elements`` vectors; `allocate` declares it.

    LLVM keeps it in registers when every index is a constant.
    """
    kind = dtype if lanes == 1 else f"{dtype}x{lanes}"
    return tirx.decl_buffer((elements,), kind, name=name, scope="local")


def allocate(buffer: Buffer) -> Stmt:
    """Declaration of a `local` buffer, ahead of its uses."""
    return tirx.AllocBuffer(buffer)


def aligned(name: str, elements: int, lanes: int) -> tuple[Buffer, list[Stmt]]:
    """Flat float32 scratch on the stack whose first byte is aligned for vectors of ``lanes``.

    A vector that straddles two cache lines is loaded twice. LLVM aligns memory by its element type,
    so the memory is one of vectors, seen as one of elements.

    Returns:
        The buffer, and the statements that declare it.
    """
    buffer = local(name, elements)
    if lanes == 1:
        return buffer, [allocate(buffer)]
    vectors = local(f"{name}_vectors", -(-elements // lanes), lanes)
    return buffer, [allocate(vectors), tirx.DeclBuffer(buffer, data=vectors.data)]


def load(buffer: Buffer, offset: Expr, lanes: int = 1) -> Expr:
    """Elements ``offset .. offset + lanes`` of a flat buffer."""
    return tirx.BufferLoad(buffer, [_index(offset, lanes)])


def store(buffer: Buffer, offset: Expr, value: Expr, lanes: int = 1) -> Stmt:
    """Write ``value`` of ``lanes`` lanes to elements ``offset ..`` of a flat buffer."""
    return tirx.BufferStore(buffer, value, [_index(offset, lanes)])


def prefetch(buffer: Buffer, offset: Expr) -> Stmt:
    """Ask for the cache line of an element ahead of its use; never changes a result."""
    address = tirx.address_of(load(buffer, offset))
    read_keep_data = (tirx.IntImm("int32", flag) for flag in (0, 3, 1))
    return tirx.Evaluate(
        tirx.call_llvm_intrin("void", "llvm.prefetch.p0", address, *read_keep_data)
    )


def splat(value: Expr, lanes: int) -> Expr:
    """``value`` in every lane."""
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def zeros(lanes: int) -> Expr:
    """float32 zero in every lane."""
    return splat(tirx.FloatImm("float32", 0.0), lanes)


def block(*statements: Stmt) -> Stmt:
    """The statements in order, if there are any."""
    if not statements:
        return tirx.Evaluate(tirx.IntImm("int32", 0))
    return statements[0] if len(statements) == 1 else tirx.SeqStmt(list(statements))


def bound(name: str, value: Expr) -> tuple[Expr, Stmt]:
    """A variable and the statement that computes it once, for all later statements of its block."""
    variable = tirx.Var(name, value.ty)
    return variable, tirx.Bind(variable, value)


def held(name: str, value: Expr) -> tuple[list[Stmt], Expr]:
    """A variable for a computed value, and the statements that make it.

    The value passes through a stack slot, which LLVM removes again: TVM's analyzers look through
    every Bind and Let, and take time exponential in the depth of what they see. Places, whose
    bounds the analyzers should see, are ``bound``.
    """
    statements: list[Stmt] = []
    while isinstance(value, tirx.Let):
        made, read = _slot(value.value)
        statements += [*made, tirx.Bind(value.var, read)]
        value = value.body
    made, read = _slot(value)
    variable = tirx.Var(name, value.ty)
    return [*statements, *made, tirx.Bind(variable, read)], variable


def _slot(value: Expr) -> tuple[list[Stmt], Expr]:
    if str(value.ty.dtype) == "bool":
        return [], value
    slot = tirx.decl_buffer((1,), value.ty.dtype, name="slot", scope="local")
    return [allocate(slot), tirx.BufferStore(slot, value, [const(0)])], load(slot, const(0))


def serial(
    name: str, extent: int | Expr, body: Callable[[Expr], Stmt], begin: int | Expr = 0
) -> Stmt:
    """Loop over ``begin .. begin + extent``; a single known iteration is the body alone."""
    start = const(begin) if isinstance(begin, int) else begin
    if isinstance(extent, int):
        if extent == 1:
            return body(start)
        extent = const(extent)
    variable = tirx.Var(name, "int64")
    return tirx.For(variable, start, extent, tirx.ForKind.SERIAL, body(variable))


def when(condition: Expr, body: Stmt) -> Stmt:
    """``body`` if the condition holds."""
    return tirx.IfThenElse(condition, body, None)


def ranges(
    parts: Sequence[tuple[int, Callable[[Expr, Expr], Stmt]]], begin: Expr, end: Expr
) -> Stmt:
    """Several nests one behind the other over one range.

    Args:
        parts: (extent, nest over [begin, end) within that extent) each.
        begin: first iteration, of the sum of all extents.
        end: one past the last.
    """
    statements: list[Stmt] = []
    offset = 0
    for extent, emit in parts:
        first, bind_first = bound("first", _clamp(begin - const(offset), extent))
        last, bind_last = bound("last", _clamp(end - const(offset), extent))
        statements.extend((bind_first, bind_last, emit(first, last)))
        offset += extent
    return block(*statements)


def kernel(operands: Sequence[Buffer], body: Callable[[Expr, Expr], Stmt]) -> tirx.PrimFunc:
    """Function of the kernel interface; ``body`` receives begin and end (int64)."""
    begin, end = tirx.Var("begin", "int64"), tirx.Var("end", "int64")
    return tirx.PrimFunc([*operands, begin, end], body(begin, end))


def _index(offset: Expr, lanes: int) -> Expr:
    return offset if lanes == 1 else tirx.Ramp(offset, const(1), lanes)


def _clamp(value: Expr, extent: int) -> Expr:
    return tirx.max(tirx.min(value, const(extent)), const(0))
