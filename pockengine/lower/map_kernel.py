"""Kernels that compute every element of a domain from elements at given places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import calls, type_of
from pockengine.lower.kernel import stored_outputs
from pockengine.lower.loops import BLOCK, PIECE, Walk, map_walk
from pockengine.lower.nest import (
    Buffer,
    Expr,
    Stmt,
    block,
    bound,
    const,
    held,
    serial,
)
from pockengine.lower.reductions import fold
from pockengine.lower.values import Index, Values
from pockengine.lower.work import Work


def split_row(row: Expr, extents: Sequence[int]) -> tuple[list[Stmt], list[Expr]]:
    """A flat row number as one bound index an axis, outermost first; an empty axis has no rows."""
    statements: list[Stmt] = []
    places: list[Expr] = []
    for extent in reversed(extents[1:]):
        divisor = const(max(extent, 1))
        place, bind = bound("i", tirx.truncmod(row, divisor))
        row, rest = bound("rest", tirx.truncdiv(row, divisor))
        statements += [bind, rest]
        places.append(place)
    if extents:
        places.append(row)
    return statements, places[::-1]


def pieces(
    extent: int | Expr, lanes: int, body: Callable[[Expr, int], Stmt], start: Expr | None = None
) -> list[Stmt]:
    """``body(place, lanes)`` over a run: whole vectors in a loop, then powers of two."""
    first = const(0) if start is None else start
    statements: list[Stmt] = []
    if not isinstance(extent, int):
        whole = tirx.truncdiv(extent, const(lanes))
        statements.append(serial("j", whole, lambda j: body(first + j * const(lanes), lanes)))
        done = whole * const(lanes)
        if lanes > 1:
            statements.append(serial("t", extent - done, lambda t: body(first + done + t, 1)))
        return statements
    if extent >= lanes:
        statements.append(
            serial("j", extent // lanes, lambda j: body(first + j * const(lanes), lanes))
        )
    done = extent - extent % lanes
    while done < extent:
        width = 1 << ((extent - done).bit_length() - 1)
        statements.append(body(first + const(done), width))
        done += width
    return statements


def map_body(graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> Work:
    """Every element of a map kernel's domain."""
    loops = map_walk(graph)
    stored = stored_outputs(graph)
    inside = frozenset(calls(graph))
    rank = len(type_of(stored[0]).shape)

    def element(places: Mapping[int, Expr], at: Expr, width: int) -> Stmt:
        values = Values(buffers, inside)
        place = [places.get(axis, const(0)) for axis in range(rank)]
        if loops.axis is not None:
            place[loops.axis] = at
        index = Index(tuple(place), loops.axis, width)
        stores = []
        for node in stored:
            there = values.elsewhere(type_of(stored[0]).shape, node, index)
            stores.append(values.store(node, there, values.value(node, there)))
        return values.flushed(*stores)

    def unit(number: Expr) -> Stmt:
        row = number if loops.blocks == 1 else tirx.truncdiv(number, const(loops.blocks))
        statements, places = split_row(row, [extent for _, extent in loops.outer])
        by_axis = dict(zip((axis for axis, _ in loops.outer), places, strict=True))
        extent: int | Expr = loops.extent
        start = None
        if loops.blocks > 1:
            start, bind = bound("start", tirx.truncmod(number, const(loops.blocks)) * const(BLOCK))
            statements.append(bind)
            if loops.extent % BLOCK:
                extent = tirx.min(const(loops.extent) - start, const(BLOCK))
            else:
                extent = BLOCK
        run = pieces(extent, lanes, lambda at, width: element(by_axis, at, width), start)
        return block(*statements, *run)

    return _over(loops, unit)


def pack_body(graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> Work:
    """Booleans to bits: conditions select a vector of bit values, whose lanes are joined."""
    del lanes
    node = stored_outputs(graph)[0]
    mask: Any = node.args[0]
    axis: Any = node.args[1]
    extent = type_of(mask).shape[axis]
    loops = map_walk(graph)
    inside = frozenset(calls(graph))
    rank = len(type_of(node).shape)

    def octets(places: Mapping[int, Expr], at: Expr, bits: int) -> Stmt:
        """The bytes that hold ``bits`` booleans, from byte ``at`` of the innermost axis."""
        values = Values(buffers, inside)
        place = [places.get(a, const(0)) for a in range(rank)]
        if loops.axis is not None:
            place[loops.axis] = at
        first = [p * const(8) if a == axis else p for a, p in enumerate(place)]
        word = _word(values, mask, Index(tuple(first), axis, bits))
        stores = []
        for byte in range(-(-bits // 8)):
            there = [p + const(byte) if a == axis else p for a, p in enumerate(place)]
            value = tirx.Cast("uint8", (word >> _int32(8 * byte)) & _int32(255))
            stores.append(values.store(node, Index(tuple(there)), value))
        return values.flushed(*stores)

    def crossing(places: Mapping[int, Expr], at: Expr) -> Stmt:
        """A byte whose booleans lie along another axis than the loop's; the last may hold fewer."""
        whole = octets(places, at, 8)
        if extent % 8 == 0:
            return whole
        last = tirx.EQ(places.get(axis, const(0)), const(extent // 8))
        return tirx.IfThenElse(last, octets(places, at, extent % 8), whole)

    def unit(number: Expr) -> Stmt:
        statements, outer = split_row(number, [e for _, e in loops.outer])
        places = dict(zip((a for a, _ in loops.outer), outer, strict=True))
        if loops.axis != axis:  # one byte after the other along another axis
            return block(*statements, serial("j", loops.extent, lambda at: crossing(places, at)))
        pairs, rest = extent // 16, extent % 16
        run = [serial("j", pairs, lambda j: octets(places, j * const(2), 16))] if pairs else []
        for bits in ([8] if rest >= 8 else []) + ([rest % 8] if rest % 8 else []):
            start = pairs * 2 + (1 if rest > 8 > bits else 0)
            run.append(octets(places, const(start), bits))
        return block(*statements, *run)

    grain = max(1, PIECE // max(1, loops.extent * 8))
    return Work(loops.rows, grain, lambda begin, end: serial("unit", end - begin, unit, begin))


def _word(values: Values, mask: Node, index: Index) -> Expr:
    """The bits of ``index.lanes`` conditions as one int32."""
    lanes = index.lanes
    if lanes not in (8, 16):
        total = _int32(0)
        for bit in range(lanes):
            place = [p + const(bit) if a == index.axis else p for a, p in enumerate(index.place)]
            found = values.value(mask, Index(tuple(place)))
            total = total | tirx.Select(found, _int32(1 << bit), _int32(0))
        return total
    ramp = tirx.Ramp(_int32(0), _int32(1), lanes)
    weights = tirx.Broadcast(_int32(1), lanes) << ramp
    chosen = tirx.Select(values.value(mask, index), weights, tirx.Broadcast(_int32(0), lanes))
    made, vector = held("bits", chosen)
    folds, word = fold(vector, lanes, lambda a, b: a | b)
    values.statements += [*made, *folds]
    return word


def _int32(value: int) -> Expr:
    return tirx.IntImm("int32", value)


def _over(loops: Walk, unit: Callable[[Expr], Stmt]) -> Work:
    return Work(
        loops.units, loops.grain, lambda begin, end: serial("unit", end - begin, unit, begin)
    )
