"""The layers of a captured model, found from its graph: where a scheme may update something."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import nn
from torch.fx import Graph, Node

from pockengine.contribution.roles import Flow, roles_of
from pockengine.errors import InputError
from pockengine.ir.forward import batch_values, forward_values
from pockengine.ir.graph import ancestors, calls, kind_of, name_of, placeholders, role_of, type_of
from pockengine.ir.ops import Kind
from pockengine.ir.types import Role
from pockengine.model_tree import bias_names, blocks, channel_axes, head_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A convolution or a product with a weight, and the biases that shift its output.

    Args:
        name: of the weight, without ``.weight``: in most models the path of a module.
        weight: canonical name of the weight.
        biases: canonical names of its own bias and of the shifts of normalizations after it,
            up to the next layer.
        role: what it does in the network, such as "first point-wise", "query" or "first FFN".
        block: path of the repeated block that it belongs to; empty outside of any.
        shape: of the weight, as PyTorch stores it.
        sliceable: whether a part of its input channels may be updated alone.
    """

    name: str
    weight: str
    biases: tuple[str, ...]
    role: str
    block: str
    shape: tuple[int, ...]
    sliceable: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The layer that ``to_dict`` gave."""
        lists = {"biases": tuple(values["biases"]), "shape": tuple(values["shape"])}
        return cls(**{**values, **lists})


def find_layers(graph: Graph, model: nn.Module) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The layers ahead of the head in the order of the forward pass, and the head's parameters.

    A layer is a convolution or matrix product of a value of the batch with one weight; of a weight
    that is used more than once, the first use counts. The head is the model's last linear layer, or
    without one the last layer there is.

    Args:
        graph: the joint graph, as captured.
        model: the module that was captured.

    Raises:
        InputError: the model has no layer besides its head.
    """
    changing = batch_values(graph)
    flow = Flow.of(graph, _weighted(graph, changing), changing)
    names = [flow.weights[index] for index in range(len(flow.weights))]
    biases = _biases(graph, flow, model)
    head = tuple(head_names(model))
    if not set(head) & set(names):
        head = (names[-1], *biases[len(names) - 1]) if names else ()
    kept = [index for index, name in enumerate(names) if name not in head]
    if not kept:
        raise InputError(
            where="profile(model)",
            found=f"{len(names)} layers, of which none is ahead of the head",
            needed="convolutions or linear layers ahead of the last one",
            remedy="Update the head alone: there is nothing else to choose",
        )
    parameters = dict(model.named_parameters())
    roles, axes, owners = roles_of(flow, parameters), channel_axes(model), _block_names(model)
    layers = (
        Layer(
            name=names[index].removesuffix(".weight"),
            weight=names[index],
            biases=tuple(name for name in biases[index] if name not in head),
            role=roles[index],
            block=next((b for b in owners if names[index].startswith(f"{b}.")), ""),
            shape=tuple(parameters[names[index]].shape),
            sliceable=id(parameters[names[index]]) in axes,
        )
        for index in kept
    )
    return tuple(layers), head


def _weighted(graph: Graph, changing: set[Node]) -> dict[Node, str]:
    """The forward calls that are layers, in order, with the names of their weights."""
    forward = forward_values(graph)
    found: dict[Node, str] = {}
    for node in calls(graph):
        if node not in forward or node not in changing or not _is_product(node):
            continue
        fixed = [x for x in node.all_input_nodes if x not in changing]
        weights = {name for operand in fixed for name in _weights(operand)}
        if len(weights) == 1 and not weights & set(found.values()):
            found[node] = weights.pop()
    return found


def _is_product(node: Node) -> bool:
    """Contractions, and convolutions of one channel each."""
    return kind_of(node) in (Kind.CONTRACT, Kind.STENCIL)


def _weights(operand: Node) -> set[str]:
    """The parameters of at least two axes that a value is computed from."""
    owned = (node for node in ancestors((operand,)) if role_of(node) is Role.PARAM)
    return {name_of(node) for node in owned if len(type_of(node).shape) > 1}


def _biases(graph: Graph, flow: Flow, model: nn.Module) -> Mapping[int, list[str]]:
    """The shifts of each layer: read after it, and before the next layer on the way."""
    found: dict[int, list[str]] = {index: [] for index in range(len(flow.weights))}
    if not found:
        return found
    wanted = {name for group in bias_names(model) for name in group}
    for node in placeholders(graph, Role.PARAM):
        if name_of(node) in wanted:
            places = [flow.last[reader] for reader in _readers(node, flow)]
            found[max(0, min(places, default=0))].append(name_of(node))
    return found


def _readers(node: Node, flow: Flow) -> set[Node]:
    """The values of the batch that a parameter gets into, by itself or by a view of it."""
    found, stack = set(), [node]
    while stack:
        for user in stack.pop().users:
            if user in flow.last:
                found.add(user)
            elif kind_of(user) is Kind.VIEW:
                stack.append(user)
    return found


def _block_names(model: nn.Module) -> list[str]:
    repeated = {id(block) for block in blocks(model)}
    return [name for name, module in model.named_modules() if id(module) in repeated and name]
