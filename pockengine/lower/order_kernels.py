"""Kernels that order or accumulate along an axis, and the one that finds last places."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import calls, op_name, type_of
from pockengine.lower import elementwise, math
from pockengine.lower.kernel import stored_outputs
from pockengine.lower.loops import PIECE
from pockengine.lower.map_kernel import pieces, split_row
from pockengine.lower.nest import (
    Buffer,
    Expr,
    Stmt,
    allocate,
    block,
    bound,
    const,
    held,
    load,
    serial,
    store,
    when,
)
from pockengine.lower.values import Index, Values
from pockengine.lower.work import Work


def scan_body(graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> Work:
    """Running sums or products along an axis; vectors along the last one where that is another."""
    node = stored_outputs(graph)[0]
    source: Any = node.args[0]
    axis: Any = node.args[1]
    shape, dtype = type_of(node).shape, type_of(node).dtype
    combine, neutral = (tirx.Add, 0) if op_name(node) == "cumsum" else (tirx.Mul, 1)
    last = len(shape) - 1
    outer = [a for a in range(len(shape)) if a not in (axis, last)]
    inside = frozenset(calls(graph))

    def run(places: Mapping[int, Expr], at: Expr, width: int) -> Stmt:
        kind = elementwise.COMPUTE[dtype]
        kind = kind if width == 1 else f"{kind}x{width}"
        total = tirx.decl_buffer((1,), kind, name="total", scope="local")

        def term(k: Expr) -> Stmt:
            values = Values(buffers, inside)
            place = {last: at, **places, axis: k}
            index = Index(tuple(place[a] for a in range(len(shape))), last, width)
            value = values.value(source, index)
            made, found = held("sum", combine(load(total, const(0)), value))
            keep = tirx.BufferStore(total, found, [const(0)])
            return values.flushed(*made, keep, values.store(node, index, found))

        start = tirx.BufferStore(total, elementwise.constant(neutral, dtype, width), [const(0)])
        return block(allocate(total), start, serial("k", shape[axis], term))

    def unit(number: Expr) -> Stmt:
        statements, found = split_row(number, [shape[a] for a in outer])
        places = dict(zip(outer, found, strict=True))
        if axis == last:
            return block(*statements, run(places, const(0), 1))
        return block(*statements, *pieces(shape[last], lanes, lambda at, w: run(places, at, w)))

    line = shape[axis] * (1 if axis == last else shape[last])
    return _units(prod(shape[a] for a in outer), line, type_of(node).size, unit)


def last_places_body(graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> Work:
    """The places of an index in turn, each written where the index says; never split."""
    node = stored_outputs(graph)[0]
    index: Any = node.args[0]
    (count,) = type_of(node).shape
    inside = frozenset(calls(graph))

    def clear(at: Expr, width: int) -> Stmt:
        nothing = elementwise.constant(-1, type_of(node).dtype, width)
        return store(buffers[node], at, nothing, width)

    def put(number: Expr) -> Stmt:
        statements, place = split_row(number, type_of(index).shape)
        values = Values(buffers, inside)
        row, bind = bound("row", tirx.Cast("int64", values.value(index, Index(tuple(place)))))
        return block(*statements, values.flushed(bind), store(buffers[node], row, number))

    def body(begin: Expr, end: Expr) -> Stmt:
        def all_of_it(_: Expr) -> Stmt:
            places = serial("i", type_of(index).size, put)
            return block(*pieces(count, lanes, clear), places)

        return serial("unit", end - begin, all_of_it, begin)

    return Work(1 if count else 0, 0, body)


def sort_body(graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> Work:
    """Batcher's odd-even merge exchange of the places of each line, compared by their elements.

    Works in the result's own memory. Places break ties, so the network's result is the stable one.
    Source: Knuth, The Art of Computer Programming 3, algorithm 5.2.2 M.
    """
    del lanes
    node = stored_outputs(graph)[0]
    axis: Any = node.args[1]
    shape = type_of(node).shape
    line = _Line(node, buffers, frozenset(calls(graph)))
    outer = [a for a in range(len(shape)) if a != axis]

    def unit(number: Expr) -> Stmt:
        statements, found = split_row(number, [shape[a] for a in outer])
        places = dict(zip(outer, found, strict=True))
        fill = serial("i", shape[axis], lambda i: line.put(places, i, i))
        return block(*statements, fill, *_network(shape[axis], places, line))

    return _units(prod(shape[a] for a in outer), shape[axis] * 16, type_of(node).size, unit)


class _Line:
    """The places of one line of a sort, in the result's memory."""

    def __init__(self, node: Node, buffers: Mapping[Node, Buffer], inside: frozenset[Node]) -> None:
        self.node = node
        self.source: Any = node.args[0]
        self.axis: Any = node.args[1]
        self.descending = bool(node.args[2])
        self.buffers = buffers
        self.inside = inside

    def _index(self, places: Mapping[int, Expr], at: Expr) -> Index:
        rank = len(type_of(self.node).shape)
        return Index(tuple(at if a == self.axis else places[a] for a in range(rank)))

    def _offset(self, places: Mapping[int, Expr], at: Expr) -> Expr:
        total: Expr = const(0)
        steps = type_of(self.node).strides
        for place, step in zip(self._index(places, at).place, steps, strict=True):
            total = total + place * const(step)
        return total

    def put(self, places: Mapping[int, Expr], at: Expr, value: Expr) -> Stmt:
        """Write a place."""
        return store(self.buffers[self.node], self._offset(places, at), value)

    def exchange(self, places: Mapping[int, Expr], low: Expr, high: Expr) -> Stmt:
        """Bring the places at two positions into order."""
        buffer = self.buffers[self.node]
        first, bind_first = bound("first", load(buffer, self._offset(places, low)))
        second, bind_second = bound("second", load(buffer, self._offset(places, high)))
        values = Values(self.buffers, self.inside)
        a = values.value(self.source, self._index(places, first))
        b = values.value(self.source, self._index(places, second))
        equal = tirx.And(elementwise.negated(self._before(a, b)), second < first)
        swap = block(self.put(places, low, second), self.put(places, high, first))
        wrong = tirx.Or(self._before(b, a), equal)
        return block(bind_first, bind_second, values.flushed(when(wrong, swap)))

    def _before(self, a: Expr, b: Expr) -> Expr:
        """Whether a has to stand ahead of b, which it does not equal; NaN is the largest."""
        if self.descending:
            a, b = b, a
        dtype = type_of(self.source).dtype
        less = elementwise.apply("lt", (a, b), dtype)
        if not dtype.is_float:
            return less
        return tirx.Or(less, tirx.And(math.is_nan(b), tirx.Not(math.is_nan(a))))


def _network(count: int, places: Mapping[int, Expr], line: _Line) -> list[Stmt]:
    """The loops of algorithm M over ``count`` elements: p halves, q halves from the top down to p.

    With p = 2^(levels - 1 - s), step k of s + 1 compares i and i + d for all i whose bit p is r:
    d = p, r = 0 at first, then d = 2^(levels - k) - p, r = p.
    """
    levels = max(0, count - 1).bit_length()
    if not levels:
        return []
    one = const(1)

    def stage(s: Expr) -> Stmt:
        p, bind_p = bound("p", one << (const(levels - 1) - s))

        def step(k: Expr) -> Stmt:
            at_first = tirx.EQ(k, const(0))
            d, bind_d = bound("d", tirx.Select(at_first, p, (one << (const(levels) - k)) - p))
            r, bind_r = bound("r", tirx.Select(at_first, const(0), p))

            def compare(i: Expr) -> Stmt:
                return when(tirx.EQ(i & p, r), line.exchange(places, i, i + d))

            length = tirx.max(const(count) - d, const(0))
            return block(bind_d, bind_r, serial("i", length, compare))

        return block(bind_p, serial("k", s + one, step))

    return [serial("s", levels, stage)]


def _units(count: int, line: int, size: int, unit: Any) -> Work:
    """Lines one by one, as many a thread as pay."""
    grain = max(1, PIECE // max(1, line))
    return Work(
        count if size else 0, grain, lambda begin, end: serial("unit", end - begin, unit, begin)
    )
