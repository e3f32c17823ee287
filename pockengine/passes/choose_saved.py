"""Choose which forward values the backward pass keeps and which it computes again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import cast

import numpy as np
from torch.fx import Graph, Node

from pockengine.ir.forward import forward_values
from pockengine.ir.graph import (
    ancestors,
    calls,
    copy_node,
    kind_of,
    op_name,
    outputs_of,
    rebuild,
)
from pockengine.ir.ops import Kind
from pockengine.passes.saved_cut import NEVER_NS, SavedCut, SavingCosts, values_of


def choose_saved(graph: Graph, costs: SavingCosts, share: float | None = None) -> Graph:
    """Clone forward nodes into the backward pass where that is cheaper than keeping their results.

    Exact: the cheapest choice is a minimum cut. Each forward value v is an edge of capacity
    ``bytes(v) * ns_per_byte`` (keep it) behind an edge from the source of capacity
    ``recompute_ns(v)`` (compute it again); values that the backward pass reads lead to the sink.
    Parameters and constants are kept at no cost.

    before::

        %x: f32[64x64] = input('x')
        %w: f32[64x64] = param('w')
        %h: f32[64x64] = matmul(%x, %w)
        %y: f32[64x64] = exp(%h)
        %g: f32[64x64] = mul(%h, %y)
        return loss=None, outputs=(%y,), gradients={'w': %g}, updates=()

    after::

        %x: f32[64x64] = input('x')
        %w: f32[64x64] = param('w')
        %h: f32[64x64] = matmul(%x, %w)
        %y: f32[64x64] = exp(%h)
        %y_1: f32[64x64] = exp(%h)
        %g: f32[64x64] = mul(%h, %y_1)
        return loss=None, outputs=(%y,), gradients={'w': %g}, updates=()

    Not applied to graphs without a backward pass. Source: Chen et al. 2016 for the idea, PyTorch's
    recomputation partitioner for the cut; the recomputation costs in the same cut are ours.

    Args:
        graph: a joint graph.
        costs: what keeping and recomputing cost.
        share: part of the step's time that may go into computing again; None for the largest.
    """
    forward = forward_values(graph)
    nodes = [node for node in graph.nodes if node in forward]
    cut = _cut(graph, nodes, forward, costs)
    if not cut.read.size:
        return graph
    work = (costs.recompute_ns(node) for node in calls(graph))
    most = costs.recompute_shares[-1] if share is None else share
    once = replace(costs, recompute_shares=(most,))
    (found,) = cut.again(once, sum(ns for ns in work if ns < NEVER_NS))
    return _clone(graph, forward, {nodes[each] for each in found.places})


def _cut(graph: Graph, nodes: list[Node], forward: set[Node], costs: SavingCosts) -> SavedCut:
    """The forward values of a graph, laid out for the minimum cut."""
    found = outputs_of(graph)
    needed = ancestors((*found.outputs, *(() if found.loss is None else (found.loss,))))
    values = values_of(nodes, needed, costs)
    inside = np.flatnonzero(~values.is_free)
    place = {nodes[each]: number for number, each in enumerate(inside.tolist())}
    edges = [(place[x], i) for node, i in place.items() for x in node.all_input_nodes if x in place]
    source, reader = np.array(edges, np.intp).reshape(-1, 2).T
    read = [i for node, i in place.items() if any(_is_backward(u, forward) for u in node.users)]
    return SavedCut(
        values=values,
        scale=np.ones(len(nodes)),
        inside=inside,
        rank=inside / len(nodes),
        source=source,
        reader=reader,
        read=np.array(read, np.intp),
    )


def _is_backward(user: Node, forward: set[Node]) -> bool:
    return user.op != "output" and user not in forward


def _clone(graph: Graph, forward: set[Node], again: set[Node]) -> Graph:
    """Backward readers of a node in ``again`` read a clone that sits where it is first needed."""
    clones: dict[Node, Node] = {}

    def visit(new: Graph, node: Node, moved: Callable[[object], object]) -> Node | None:
        if node in forward:
            return None

        def read(operand: Node) -> Node:
            return clones.get(operand) or moved(operand)  # type: ignore[return-value]

        def copy(original: Node) -> Node:
            unpacked = _unpacked(original, again)
            return copy_node(new, original, read) if unpacked is None else read(unpacked)

        for each in _clones_first(node, again, clones):
            clones[each] = copy(each)
        return copy(node)

    return rebuild(graph, visit)


def _unpacked(node: Node, again: set[Node]) -> Node | None:
    """The mask behind bits that are packed again only to be unpacked."""
    packed = node.args[0] if op_name(node) == "unpack_bits" else None
    if not isinstance(packed, Node) or packed not in again:
        return None
    return cast("Node", packed.args[0])


def _clones_first(node: Node, again: set[Node], clones: Mapping[Node, Node]) -> Iterator[Node]:
    """What has to be cloned for a node, sources first; each has its clone when the next is asked.

    A sequence unrolled over time is deeper than Python's stack.
    """

    def missing(of: Node) -> list[Node]:
        unpacked = _unpacked(of, again)
        sources = of.all_input_nodes if unpacked is None else [unpacked]
        return [each for each in sources if each in again and each not in clones]

    stack = missing(node)[::-1]
    while stack:
        if stack[-1] in clones:
            stack.pop()
        elif deeper := missing(stack[-1]):
            stack += deeper[::-1]
        else:
            yield stack.pop()


def saved_values(graph: Graph) -> list[Node]:
    """The stored forward values that calls outside the forward pass read, in order."""
    forward = forward_values(graph)
    return [
        node
        for node in calls(graph)
        if node in forward and kind_of(node) is not Kind.VIEW and _outlives(node, forward)
    ]


def _outlives(node: Node, forward: set[Node]) -> bool:
    """Whether a backward call reads the value, itself or through forward views."""
    for user in node.users:
        if user.op == "output":
            continue
        if user not in forward or (kind_of(user) is Kind.VIEW and _outlives(user, forward)):
            return True
    return False
