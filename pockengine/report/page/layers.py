"""What each layer of a model costs, forward and backward, and what of it a scheme prunes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch.fx import Graph, Node

from pockengine.ir.graph import ancestors, calls, name_of, outputs_of, role_of
from pockengine.ir.types import Role
from pockengine.plan.flops import node_flops

UNOWNED = "(loss)"
"""What belongs to no layer: the loss, and what is made of inputs and numbers alone."""

_MODEL = (Role.PARAM, Role.CONST, Role.STATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Floating-point operations of a tensor's share of a graph.

    Args:
        forward: for the loss and the outputs.
        backward: for gradients.
    """

    forward: int = 0
    backward: int = 0


def layer_of(tensor: str) -> str:
    """The module that holds a tensor, by name."""
    return tensor.rpartition(".")[0]


def work_by_layer(graph: Graph) -> dict[str, Work]:
    """The work of each layer, and of ``UNOWNED``, in a graph that differentiates.

    A value belongs to the parameter whose gradient alone it serves, else to the first tensor of the
    model that it is computed with, else to what its first operand belongs to.

    Args:
        graph: ahead of ``fold_constants``.
    """
    owners = _owners(graph)
    found = outputs_of(graph)
    heads = (() if found.loss is None else (found.loss,)) + found.outputs
    forward = ancestors(tuple(heads))
    work: dict[str, Work] = {}
    for node in calls(graph):
        layer = layer_of(owners[node]) if node in owners else UNOWNED
        now, flops = work.get(layer, Work()), node_flops(node)
        if node in forward:
            work[layer] = Work(forward=now.forward + flops, backward=now.backward)
        else:
            work[layer] = Work(forward=now.forward, backward=now.backward + flops)
    return work


def _owners(graph: Graph) -> dict[Node, str]:
    """The tensor of the model that each value belongs to; values without one are left out."""
    sole = _sole_gradients(graph)
    owners: dict[Node, str] = {}
    of_model: set[Node] = set()  # computed from nothing but the model's tensors
    for node in graph.nodes:
        if role_of(node) in _MODEL:
            owners[node] = name_of(node)
            of_model.add(node)
        elif node.op == "call_function":
            operands = node.all_input_nodes
            if operands and all(operand in of_model for operand in operands):
                of_model.add(node)
            ahead = [each for each in operands if each in of_model]
            owner = sole.get(node) or _first(owners, (*ahead, *operands))
            if owner:
                owners[node] = owner
    return owners


def _first(owners: Mapping[Node, str], nodes: Iterable[Node]) -> str:
    return next((owners[node] for node in nodes if node in owners), "")


def _sole_gradients(graph: Graph) -> dict[Node, str]:
    """The parameter whose gradient a value serves, of values that serve only one and no loss."""
    found = outputs_of(graph)
    many = ""
    serves: dict[Node, str] = {}
    for name, node in found.gradients.items():
        serves[node] = many if node in serves else name
    heads = (() if found.loss is None else (found.loss,)) + found.outputs + found.updates
    serves |= dict.fromkeys(heads, many)
    for node in reversed(graph.nodes):
        if node not in serves:
            continue
        for operand in node.all_input_nodes:
            same = serves.setdefault(operand, serves[node]) == serves[node]
            if not same:
                serves[operand] = many
    return {node: name for node, name in serves.items() if name}
