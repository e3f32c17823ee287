"""Choose which forward values the backward pass keeps and which it computes again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow
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
    role_of,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.types import Role

FREE = (Role.PARAM, Role.CONST, Role.STATE, Role.HYPER)
FOREVER = 2**30  # a capacity that no cut pays
NEVER_NS = 1e9  # work that is told as this is not to be repeated
MOST_WORTH = 1000.0  # times the least worth of a byte
BISECTIONS = 9
EARLY = 0.3
"""How much dearer keeping the first forward value is told than keeping the last, as a share."""


@dataclass(frozen=True, slots=True)
class SavingCosts:
    """What keeping and recomputing cost.

    Args:
        recompute_ns: nanoseconds to compute a node once more, its operands given.
        ns_per_byte: what a byte kept through the step is worth; more means less memory, more work.
        recompute_share: part of the step's time that may go into computing again: the byte's worth
            rises above ``ns_per_byte`` until that is spent. 0: it does not rise.
    """

    recompute_ns: Callable[[Node], float]
    ns_per_byte: float
    recompute_share: float = 0.0


def choose_saved(graph: Graph, costs: SavingCosts) -> Graph:
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
    """
    forward = forward_values(graph)
    read = [
        node
        for node in graph.nodes
        if node in forward and any(u.op != "output" and u not in forward for u in node.users)
    ]
    if not read:
        return graph
    again = _cut(graph, forward, read, costs)
    if costs.recompute_share:
        again = _spend(graph, forward, read, costs, again)
    return _clone(graph, forward, again)


def _spend(
    graph: Graph, forward: set[Node], read: list[Node], costs: SavingCosts, again: set[Node]
) -> set[Node]:
    """The cut at the highest worth of a byte whose recomputation stays within the share.

    Values of equal worth (the layers of a transformer) would all fall at one price; earlier ones,
    which are kept for longer, are told as worth a little more to be rid of (``EARLY``).
    """
    work = {node: costs.recompute_ns(node) for node in calls(graph)}
    step_ns = sum(ns for ns in work.values() if ns < NEVER_NS)
    low, high = costs.ns_per_byte, costs.ns_per_byte * MOST_WORTH
    for _ in range(BISECTIONS):
        middle = (low * high) ** 0.5
        dearer = replace(costs, ns_per_byte=middle)
        found = _cut(graph, forward, read, dearer, early=EARLY)
        spent = sum(work[node] for node in _evaluated(found, read) if node in work)
        if spent <= costs.recompute_share * step_ns:
            low, again = middle, found
        else:
            high = middle
    return again


def _evaluated(again: set[Node], read: list[Node]) -> set[Node]:
    """The nodes of ``again`` that the backward pass really needs."""
    found: set[Node] = set()
    stack = [node for node in read if node in again]
    while stack:
        node = stack.pop()
        if node not in found:
            found.add(node)
            stack += [operand for operand in node.all_input_nodes if operand in again]
    return found


def _cut(
    graph: Graph,
    forward: set[Node],
    read: list[Node],
    costs: SavingCosts,
    *,
    early: float = 0.0,
) -> set[Node]:
    """The forward nodes to compute again."""
    nodes = [node for node in graph.nodes if node in forward]
    found = outputs_of(graph)
    needed = ancestors((*found.outputs, *(() if found.loss is None else (found.loss,))))
    place = {node: index for index, node in enumerate(nodes)}
    source, sink = 2 * len(nodes), 2 * len(nodes) + 1
    edges: dict[tuple[int, int], int] = {}
    for node, index in place.items():
        keep = _keep(node, costs, extra=node not in needed)
        if keep < FOREVER / 2:
            keep = _capacity(keep * (1 + early * (0.5 - index / len(nodes))))
        edges[2 * index, 2 * index + 1] = keep
        edges[source, 2 * index] = _again(node, costs)
        for operand in node.all_input_nodes:
            edges[2 * place[operand] + 1, 2 * index] = FOREVER
    for node in read:
        edges[2 * place[node] + 1, sink] = FOREVER
    reachable = _source_side(edges, source, sink)
    return {node for node, index in place.items() if 2 * index not in reachable}


def _keep(node: Node, costs: SavingCosts, *, extra: bool) -> int:
    """What keeping a value costs; one that the forward pass does not need must be made as well."""
    if node.op == "placeholder":
        return 0 if role_of(node) in FREE else _capacity(type_of(node).nbytes * costs.ns_per_byte)
    if kind_of(node) is Kind.VIEW:
        return FOREVER  # keep what it shows instead
    made = costs.recompute_ns(node) if extra else 0
    return _capacity(type_of(node).nbytes * costs.ns_per_byte + made)


def _again(node: Node, costs: SavingCosts) -> int:
    if node.op == "placeholder":
        return FOREVER
    if op_name(node) == "pack_bits":
        return 1  # a recomputed mask is read as it is
    return _capacity(costs.recompute_ns(node))


def _capacity(ns: float) -> int:
    """Nanoseconds as the integer that the flow solver takes, at least one: ties keep less."""
    return int(min(max(ns, 1), FOREVER / 2))


def _source_side(edges: dict[tuple[int, int], int], source: int, sink: int) -> set[int]:
    size = sink + 1
    rows, columns = np.array(list(edges), dtype=np.int32).T
    values = np.array(list(edges.values()), dtype=np.int32)
    capacities = csr_array((values, (rows, columns)), shape=(size, size))
    flow = maximum_flow(capacities, source, sink).flow
    residual = (capacities - flow).tocsr()
    residual.data[residual.data < 0] = 0
    residual.eliminate_zeros()
    order = breadth_first_order(residual, source, return_predecessors=False)
    return {int(index) for index in order}


def _clone(graph: Graph, forward: set[Node], again: set[Node]) -> Graph:
    """Backward readers of a node in ``again`` read a clone that sits where it is first needed."""
    clones: dict[Node, Node] = {}

    def visit(new: Graph, node: Node, moved: Callable[[object], object]) -> Node | None:
        if node in forward:
            return None

        def clone(operand: Node) -> Node:
            if operand not in again:
                return moved(operand)  # type: ignore[return-value]
            if operand not in clones:
                clones[operand] = copy(operand)
            return clones[operand]

        def copy(original: Node) -> Node:
            packed = original.args[0] if op_name(original) == "unpack_bits" else None
            if isinstance(packed, Node) and packed in again:
                return clone(packed.args[0])  # type: ignore[arg-type]  # no bits needed in between
            for source in original.all_input_nodes:
                clone(source)
            return copy_node(new, original, clone)

        return copy(node)

    return rebuild(graph, visit)


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
