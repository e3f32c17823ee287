"""Concatenation: one copy after the other."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from torch.fx import Graph, Node
from tvm import tirx

from pockengine.ir.graph import calls, type_of
from pockengine.lower.kernel import stored_outputs
from pockengine.lower.loops import PIECE, map_walk
from pockengine.lower.map_kernel import pieces, split_row
from pockengine.lower.nest import Buffer, Expr, Stmt, block, const, serial
from pockengine.lower.values import Index, Values
from pockengine.lower.work import Work


def cat_body(graph: Graph, buffers: Mapping[Node, Buffer], lanes: int) -> Work:
    """The body of a concatenation over the rows of its result's walk."""
    node = stored_outputs(graph)[0]
    sources: Any = node.args[0]
    axis: Any = node.args[1]
    shape = type_of(node).shape
    loops = map_walk(graph)
    inside = frozenset(calls(graph))
    starts = [sum(type_of(s).shape[axis] for s in sources[:i]) for i in range(len(sources))]

    def copy(source: Node, start: int, places: Mapping[int, Expr]) -> Stmt:
        own = type_of(source).shape

        def element(at: Expr, width: int) -> Stmt:
            values = Values(buffers, inside)
            place = [places.get(a, const(0)) for a in range(len(shape))]
            if loops.axis is not None:
                place[loops.axis] = at
            goal = Index(tuple(place), loops.axis, width)
            place[axis] = place[axis] - const(start)
            origin = Index(tuple(place), loops.axis, width)
            return values.flushed(values.store(node, goal, values.value(source, origin)))

        if loops.axis == axis:
            return block(*pieces(own[axis], lanes, element, const(start)))
        body = block(*pieces(loops.extent, lanes, element))
        at = places[axis]
        inside_it = tirx.And(at >= const(start), at < const(start + own[axis]))
        return tirx.IfThenElse(inside_it, body, None)

    def unit(number: Expr) -> Stmt:
        statements, outer = split_row(number, [extent for _, extent in loops.outer])
        places = dict(zip((a for a, _ in loops.outer), outer, strict=True))
        live = [(s, at) for s, at in zip(sources, starts, strict=True) if prod(type_of(s).shape)]
        return block(*statements, *(copy(s, at, places) for s, at in live))

    grain = max(1, PIECE // max(1, loops.extent))
    return Work(loops.rows, grain, lambda begin, end: serial("unit", end - begin, unit, begin))
