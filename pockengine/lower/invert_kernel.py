"""The places of each value of an index, by counting: one thread, three passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import calls, type_of
from pockengine.lower.kernel import stored_outputs
from pockengine.lower.map_kernel import split_row
from pockengine.lower.nest import Buffer, Expr, Stmt, block, bound, const, load, serial, store
from pockengine.lower.values import Index, Values
from pockengine.lower.work import Work


def invert_body(graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> Work:
    """A counting sort: count each value, sum the counts up to starts, put each place down.

    Element ``value + 1`` first counts the value, then is where its next place goes, and so ends as
    where the following value's places begin.
    """
    del lanes
    node = stored_outputs(graph)[0]
    index: Any = node.args[0]
    count: Any = node.args[1]
    shape, total = type_of(index).shape, type_of(index).size
    inside = frozenset(calls(graph))
    out = buffers[node]

    def each(body: Callable[[Expr, Expr], list[Stmt]]) -> Stmt:
        """``body(position, element of its value)`` for all positions in order."""

        def step(number: Expr) -> Stmt:
            statements, place = split_row(number, shape)
            values = Values(buffers, inside)
            value = tirx.Cast("int64", values.value(index, Index(tuple(place))))
            at, bind = bound("at", value + const(1))
            return block(*statements, values.flushed(bind), *body(number, at))

        return serial("i", total, step)

    def tally(number: Expr, at: Expr) -> list[Stmt]:
        del number
        return [store(out, at, load(out, at) + _int32(1))]

    def put(number: Expr, at: Expr) -> list[Stmt]:
        place, bind = bound("place", load(out, at))
        spot = tirx.Cast("int64", place) + const(count + 1)
        stored = store(out, spot, tirx.Cast("int32", number))
        return [bind, stored, store(out, at, place + _int32(1))]

    def whole(unit: Expr) -> Stmt:
        del unit
        clear = serial("v", count + 1, lambda v: store(out, v, _int32(0)))
        return block(clear, each(tally), _starts(out, count), each(put))

    return Work(1, 0, lambda begin, end: serial("unit", end - begin, whole, begin))


def _starts(out: Buffer, count: int) -> Stmt:
    """Turn the counts, from element 1 on, into the sums of those before each."""
    running = tirx.decl_buffer((1,), "int32", name="running", scope="local")

    def step(at: Expr) -> Stmt:
        found, bind = bound("found", load(out, at))
        before, hold = bound("before", load(running, const(0)))
        following = store(running, const(0), before + found)
        return block(bind, hold, following, store(out, at, before))

    start = store(running, const(0), _int32(0))
    return block(tirx.AllocBuffer(running), start, serial("v", count, step, 1))


def _int32(value: int) -> Expr:
    return tirx.IntImm("int32", value)
