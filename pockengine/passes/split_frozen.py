"""Cut what no update reaches off the front of a joint graph, so that it can be computed once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch.fx import Graph, Node

from pockengine.ir.forward import forward_values
from pockengine.ir.graph import (
    Outputs,
    ancestors,
    calls,
    copy_node,
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
_LAYERS = (Kind.CONTRACT, Kind.STENCIL, Kind.INDEX)


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

    Behind the cut are also random numbers, views, and what is made of inputs element by element,
    such as a mask. The cut is where the rest reads: it is not moved to where fewer bytes pass.
    Source: the frozen prefix of PockEngine, of which nothing is kept for the backward pass.

    Args:
        graph: a joint graph with gradients, whose updates write no buffer.
        updated: canonical names of parameters.

    Raises:
        SchemeError: the loss depends on none of the parameters.
    """
    pruned = prune_backward(graph, updated)
    frozen = _frozen(pruned)
    yielded = outputs_of(pruned).nodes
    behind = ancestors(yielded, frozen)
    cut = [node for node in pruned.nodes if _is_cut(node, frozen, behind, yielded)]
    names = {
        node: name_of(node) if node.op == "placeholder" else f"{_NAME}.{index}"
        for index, node in enumerate(cut)
    }
    before = _without_unread(subgraph(pruned, Outputs(outputs=tuple(cut))))
    return Split(before, _behind(pruned, names, behind), tuple(names.values()))


def _frozen(graph: Graph) -> set[Node]:
    """What the forward pass computes from inputs and constants alone, and not element-wise."""
    forward = forward_values(graph)
    known = set(placeholders(graph, Role.INPUT, Role.CONST))
    changing = set(placeholders(graph, Role.INPUT))
    deep: set[Node] = set()
    for node in calls(graph):
        operands = node.all_input_nodes
        if node not in forward or any(x not in known for x in operands):
            continue
        known.add(node)
        if not any(x in changing for x in operands):
            continue
        changing.add(node)
        if kind_of(node) in _LAYERS or any(x in deep for x in operands):
            deep.add(node)
    return {node for node in deep if kind_of(node) is not Kind.VIEW}


def _is_cut(node: Node, frozen: set[Node], behind: set[Node], yielded: tuple[Node, ...]) -> bool:
    """Whether the rest reads a value of the front, or an input."""
    if role_of(node) is Role.INPUT:
        return node in behind
    return node in frozen and (node in yielded or any(user in behind for user in node.users))


def _behind(graph: Graph, names: dict[Node, str], behind: set[Node]) -> Graph:
    """What is computed behind a cut, which is read from inputs of these names."""
    new = Graph()
    place: dict[Node, Node] = {}
    for node, name in names.items():
        if node.op != "placeholder":
            place[node] = placeholder(new, name, type_of(node), Role.INPUT)
    for node in graph.nodes:
        if node in behind:
            place[node] = copy_node(new, node, place.__getitem__)
    set_outputs(new, outputs_of(graph).mapped(place.__getitem__))
    return new


def _without_unread(graph: Graph) -> Graph:
    """Without placeholders that nothing reads."""
    yielded = outputs_of(graph).nodes
    for node in list(placeholders(graph)):
        if not node.users and node not in yielded:
            graph.erase_node(node)
    return graph
