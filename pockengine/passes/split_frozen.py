"""Cut what no update reaches off the front of a joint graph, so that it can be computed once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch.fx import Graph, Node

from pockengine.ir.forward import forward_values
from pockengine.ir.graph import (
    Outputs,
    calls,
    copy_node,
    drop_dead,
    kind_of,
    name_of,
    outputs_of,
    placeholder,
    placeholders,
    role_of,
    set_outputs,
    subgraph,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.types import Role
from pockengine.passes.prune_backward import prune_backward

_NAME = "frozen"


@dataclass(frozen=True, slots=True)
class Split:
    """A joint graph in two parts.

    Args:
        before: the frozen part: yields the cut's values as its outputs.
        after: the rest: reads them as the inputs ``frozen.0``, ``frozen.1`` and so on, or an
            input of the whole graph under its own name.
        inputs: names of the inputs of ``after``, in the order of the outputs of ``before``.
    """

    before: Graph
    after: Graph
    inputs: tuple[str, ...]


def split_frozen(graph: Graph, updated: Collection[str]) -> Split:
    """Split a joint graph where the first updated parameter is read.

    before (``updated`` is ``{"w"}``)::

        %x: f32[4x8] = input('x')
        %v: f32[8x8] = param('v')
        %w: f32[8x2] = param('w')
        %h: f32[4x8] = matmul(%x, %v)
        %y: f32[4x2] = matmul(%h, %w)
        %loss: f32[] = sum(%y, (0, 1))
        %dy: f32[4x2] = full((4, 2), 1.0, 'f32')
        %ht: f32[8x4] = permute(%h, (1, 0))
        %dw: f32[8x2] = matmul(%ht, %dy)
        return loss=%loss, outputs=(%y,), gradients={'w': %dw}, updates=()

    after (``before`` yields ``%h``)::

        %frozen_0: f32[4x8] = input('frozen.0')
        %w: f32[8x2] = param('w')
        %y: f32[4x2] = matmul(%frozen_0, %w)
        %loss: f32[] = sum(%y, (0, 1))
        %dy: f32[4x2] = full((4, 2), 1.0, 'f32')
        %ht: f32[8x4] = permute(%frozen_0, (1, 0))
        %dw: f32[8x2] = matmul(%ht, %dy)
        return loss=%loss, outputs=(%y,), gradients={'w': %dw}, updates=()

    Views and random numbers are computed behind the cut. The cut is where the rest reads: it is not
    moved to where fewer bytes pass.
    Source: the frozen prefix of PockEngine, of which nothing is kept for the backward pass.

    Args:
        graph: a joint graph with gradients, whose updates write no buffer.
        updated: canonical names of parameters.

    Raises:
        SchemeError: the loss depends on none of the parameters.
    """
    pruned = prune_backward(graph, updated)
    frozen = _frozen(pruned)
    cut = _cut(pruned, frozen)
    names = {
        node: name_of(node) if node.op == "placeholder" else f"{_NAME}.{index}"
        for index, node in enumerate(cut)
    }
    before = _without_unread(subgraph(pruned, Outputs(outputs=tuple(cut))))
    return Split(before, _behind(pruned, names), tuple(names.values()))


def _frozen(graph: Graph) -> set[Node]:
    """What the forward pass computes from inputs and constants alone, with at least one input."""
    forward = forward_values(graph)
    found = set(placeholders(graph, Role.INPUT))
    allowed = found | set(placeholders(graph, Role.CONST))
    for node in calls(graph):
        operands = node.all_input_nodes
        if any(x not in allowed for x in operands):
            continue
        allowed.add(node)
        if node in forward and any(x in found for x in operands):
            found.add(node)
    return found


def _cut(graph: Graph, frozen: set[Node]) -> list[Node]:
    """The frozen values that the rest reads, of a view what it shows."""
    yielded = set(outputs_of(graph).nodes)
    read = {
        node
        for node in frozen
        if node in yielded or any(u.op != "output" and u not in frozen for u in node.users)
    }
    shown = {_base(node) for node in read}
    return [node for node in graph.nodes if node in shown]


def _base(node: Node) -> Node:
    while kind_of(node) is Kind.VIEW:
        (node,) = node.all_input_nodes
    return node


def _behind(graph: Graph, names: dict[Node, str]) -> Graph:
    """What is computed behind a cut, which is read from inputs of these names."""
    new = Graph()
    place: dict[Node, Node] = {}
    for node, name in names.items():
        if node.op == "placeholder":
            place[node] = copy_node(new, node, place.__getitem__)
        else:
            place[node] = placeholder(new, name, type_of(node), Role.INPUT)
    for node in graph.nodes:
        if node.op == "placeholder" and node not in place:
            place[node] = copy_node(new, node, place.__getitem__)
    wanted = _needed(outputs_of(graph).nodes, set(names))
    for node in graph.nodes:
        if node in wanted and node not in place:
            place[node] = copy_node(new, node, place.__getitem__)
    set_outputs(new, outputs_of(graph).mapped(place.__getitem__))
    drop_dead(new)
    return _without_unread(new)


def _needed(heads: tuple[Node, ...], stop: set[Node]) -> set[Node]:
    """What values are computed from, back to some that are known."""
    seen: set[Node] = set()
    stack = list(heads)
    while stack:
        node = stack.pop()
        if node not in seen and node not in stop:
            seen.add(node)
            stack += node.all_input_nodes
    return seen


def _without_unread(graph: Graph) -> Graph:
    """Without placeholders that nothing reads; the loss's targets stay where there is a loss."""
    found = outputs_of(graph)
    kept = {Role.TARGET} if found.loss is not None else set()
    for node in list(placeholders(graph)):
        if not node.users and node not in found.nodes and role_of(node) not in kept:
            graph.erase_node(node)
    return graph
