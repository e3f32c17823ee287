"""What each layer does in its network, read off the flow of data between layers."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Self

from torch import Tensor
from torch.fx import Graph, Node

from pockengine.ir.forward import forward_values
from pockengine.ir.graph import calls, kind_of
from pockengine.ir.ops import Kind

_PAIR = 2  # operands of a product


@dataclass(frozen=True, slots=True)
class Flow:
    """How data gets from layer to layer; layers by their place in the forward pass.

    Args:
        weights: name of each layer's weight.
        sources: the layers that each one's input comes from, through no other layer.
        last: of each forward value of the batch, the latest layer that it is computed from; -1
            where none is.
        products: products of two values of the batch, as in attention: the layers that either
            operand comes from, and whether through another such product.
        mixed: layers whose input comes through a product of two values of the batch.
    """

    weights: Mapping[int, str]
    sources: Mapping[int, frozenset[int]]
    last: Mapping[Node, int]
    products: tuple[tuple[tuple[frozenset[int], bool], ...], ...]
    mixed: frozenset[int]

    @classmethod
    def of(cls, graph: Graph, layers: Mapping[Node, str], changing: AbstractSet[Node]) -> Self:
        """The flow through a graph between the calls that are layers, of what is ``changing``."""
        forward = forward_values(graph) & changing
        place = {node: index for index, node in enumerate(layers)}
        near: dict[Node, frozenset[int]] = {}
        through: dict[Node, bool] = {}
        last: dict[Node, int] = {}
        sources: dict[int, frozenset[int]] = {}
        products = []
        mixed = set()
        for node in (each for each in calls(graph) if each in forward):
            operands = [x for x in node.all_input_nodes if x in near]
            reached = frozenset().union(*(near[x] for x in operands))
            crossed = any(through[x] for x in operands)
            last[node] = max((last[x] for x in operands), default=-1)
            if node in place:
                index = place[node]
                sources[index] = reached
                mixed |= {index} if crossed else set()
                reached, crossed = frozenset({index}), False
                last[node] = max(last[node], index)
            elif kind_of(node) is Kind.CONTRACT and len(operands) == _PAIR:
                products.append(tuple((near[x], through[x]) for x in operands))
                crossed = True
            near[node], through[node] = reached, crossed
        weights = dict(enumerate(layers.values()))
        return cls(weights, sources, last, tuple(products), frozenset(mixed))


def roles_of(flow: Flow, parameters: Mapping[str, Tensor]) -> dict[int, str]:
    """A name for what each layer does.

    Attention is told by its products: what is multiplied first are queries and keys, what the
    result of that is multiplied with are values. An inverted block is told by its depthwise
    convolution, a feed-forward network (FFN) by a pair of linear layers that widens and narrows.
    """
    shapes = {index: tuple(parameters[name].shape) for index, name in flow.weights.items()}
    found = {index: _kind(shape) for index, shape in shapes.items()}
    found |= _inverted(flow, found)
    found |= _feed_forward(flow, shapes, found)
    return found | _attention(flow)


def _kind(shape: tuple[int, ...]) -> str:
    channels, *window = shape[1:]
    if not window:
        return "linear"
    if channels == 1 and shape[0] > 1 and max(window) > 1:
        return "depthwise"
    return "point-wise" if max(window) == 1 else "convolution"


def _inverted(flow: Flow, kinds: Mapping[int, str]) -> dict[int, str]:
    """The point-wise convolutions on either side of a depthwise one."""
    found = {}
    for index, sources in flow.sources.items():
        if kinds[index] == "point-wise" and any(kinds[x] == "depthwise" for x in sources):
            found[index] = "second point-wise"
        elif kinds[index] == "depthwise" and len(sources) == 1:
            (before,) = sources
            if kinds[before] == "point-wise" and before not in found:
                found[before] = "first point-wise"
    return found


def _feed_forward(
    flow: Flow, shapes: Mapping[int, tuple[int, ...]], kinds: Mapping[int, str]
) -> dict[int, str]:
    """Linear layers that widen (one, or a gate beside one), and the one that narrows again."""
    readers: dict[int, set[int]] = {index: set() for index in flow.sources}
    for index, sources in flow.sources.items():
        for source in sources:
            readers[source].add(index)
    found: dict[int, str] = {}
    for index, sources in flow.sources.items():
        pair = [index, *sources]
        if not sources or index in flow.mixed or any(kinds[x] != "linear" for x in pair):
            continue
        own = all(readers[x] == {index} and x not in flow.mixed for x in sources)
        widens = all(
            shapes[x][1] == shapes[index][0] and shapes[x][0] > shapes[x][1] for x in sources
        )
        if own and widens:
            found |= {index: "second FFN", **dict.fromkeys(sources, "first FFN")}
    return found


def _attention(flow: Flow) -> dict[int, str]:
    told: dict[int, list[str]] = {}
    for first, second in flow.products:
        parts = [(first[0], "query"), (second[0], "key")]
        if first[1] or second[1]:  # weights of attention times values
            parts = [(second[0] if first[1] else first[0], "value")]
        for layers, role in parts:
            if len(layers) == 1 and role not in told.setdefault(min(layers), []):
                told[min(layers)].append(role)
    output = dict.fromkeys(flow.mixed, "attention output")
    return output | {index: _joined(roles) for index, roles in told.items()}


def _joined(roles: list[str]) -> str:
    """One phrase."""
    return roles[0] if len(roles) == 1 else f"{', '.join(roles[:-1])} and {roles[-1]}"
