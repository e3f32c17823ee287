"""Kernels that compute every element of a domain from elements at given places."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import calls, type_of
from pockengine.lower.across import Across, Probe, lying_across, somewhere
from pockengine.lower.kernel import stored_outputs
from pockengine.lower.loops import BLOCK, PIECE, map_walk
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
from pockengine.lower.reductions import fold, run_widths
from pockengine.lower.values import Copies, Index, Values
from pockengine.lower.work import Work

_COLUMNS = 256  # of a tile where an operand lies across the loop


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
    return _Map(graph, buffers, lanes).work()


class _Map:
    def __init__(self, graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> None:
        self.buffers = buffers
        self.lanes = lanes
        self.loops = map_walk(graph)
        self.stored = stored_outputs(graph)
        self.inside = frozenset(calls(graph))
        self.shape = type_of(self.stored[0]).shape

    def work(self) -> Work:
        """The loops; by tiles where an operand lies across them."""
        loops = self.loops
        across = self._across()
        if across is not None:
            return self._by_tiles(across)
        return Work(
            loops.units,
            loops.grain,
            lambda begin, end: serial("unit", end - begin, self._unit, begin),
        )

    def _across(self) -> Across | None:
        loops = self.loops
        if self.lanes == 1 or loops.axis is None or not loops.outer:
            return None
        widest = max(run_widths(loops.extent, self.lanes))
        domain = Index(somewhere(self.shape), loops.axis, widest)
        probe = Probe(self.buffers, self.inside)
        self._stores(probe, domain)
        return lying_across(probe, domain, dict(loops.outer), min(loops.extent, _COLUMNS))

    def _stores(self, values: Values, index: Index) -> list[Stmt]:
        """What the kernel computes at a place."""
        return values.stores(self.stored, self.shape, index)

    def _element(
        self, places: Mapping[int, Expr], at: Expr, width: int, copies: Copies | None = None
    ) -> Stmt:
        values = Values(self.buffers, self.inside, copies=copies)
        return values.flushed(
            *self._stores(values, Index(self._place(places, at), self.loops.axis, width))
        )

    def _place(self, places: Mapping[int, Expr], at: Expr) -> tuple[Expr, ...]:
        everywhere = places if self.loops.axis is None else {**places, self.loops.axis: at}
        return tuple(everywhere.get(axis, const(0)) for axis in range(len(self.shape)))

    def _unit(self, number: Expr) -> Stmt:
        """A row, or a block of it."""
        loops = self.loops
        row = number if loops.blocks == 1 else tirx.truncdiv(number, const(loops.blocks))
        statements, places = split_row(row, [extent for _, extent in loops.outer])
        by_axis = dict(zip((axis for axis, _ in loops.outer), places, strict=True))
        start, extent = const(0), loops.extent
        if loops.blocks > 1:
            bind, start, extent = _cut(number, loops.extent, BLOCK)
            statements += bind
        run = pieces(extent, self.lanes, lambda at, width: self._element(by_axis, at, width), start)
        return block(*statements, *run)

    def _by_tiles(self, across: Across) -> Work:
        """Some rows along another axis at once, and some columns of them."""
        loops = self.loops
        outer = [
            (axis, across.tiles if axis == across.axis else extent) for axis, extent in loops.outer
        ]
        cuts = -(-loops.extent // _COLUMNS)

        def unit(number: Expr) -> Stmt:
            row = number if cuts == 1 else tirx.truncdiv(number, const(cuts))
            statements, found = split_row(row, [extent for _, extent in outer])
            places = dict(zip((axis for axis, _ in outer), found, strict=True))
            start, extent = const(0), loops.extent
            if cuts > 1:
                bind, start, extent = _cut(number, loops.extent, _COLUMNS)
                statements += bind

            def rows(first: Expr, height: int) -> Stmt:
                def row(step: Expr) -> Stmt:
                    here = {**places, across.axis: first + step}
                    return block(
                        *pieces(
                            extent,
                            self.lanes,
                            lambda at, width: self._element(
                                here, at, width, across.known(height, step, at - start)
                            ),
                            start,
                        )
                    )

                place = self._place({**places, across.axis: first}, start)
                copies = across.copied(place, height, extent, const(0))
                return block(*copies, serial("row", height, row))

            return block(*statements, *across.tile(places[across.axis], rows))

        elements = across.rows * min(loops.extent, _COLUMNS)
        return Work(
            prod(extent for _, extent in outer) * cuts,
            max(1, PIECE // elements),
            lambda begin, end: block(*across.declared, serial("unit", end - begin, unit, begin)),
        )


def _cut(number: Expr, extent: int, length: int) -> tuple[list[Stmt], Expr, int | Expr]:
    """Where the piece of a run that a unit works on begins, and its extent."""
    start, bind = bound("start", tirx.truncmod(number, const(-(-extent // length))) * const(length))
    if extent % length:
        return [bind], start, tirx.min(const(extent) - start, const(length))
    return [bind], start, length


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
