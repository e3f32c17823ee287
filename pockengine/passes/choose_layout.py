"""Give every value the storage order its kernels read fastest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch.fx import Graph, Node

from pockengine.ir.access import access, storage_order
from pockengine.ir.graph import (
    calls,
    emit,
    kind_of,
    name_of,
    op_name,
    rebuild,
    role_of,
    set_type,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.types import Role
from pockengine.ir.verify import base_of

Order: TypeAlias = tuple[int, ...]
Wish: TypeAlias = tuple[int, Order]  # how strong it is, and the order
_ACTIVATION: Order = (0, 2, 3, 1)  # (N, C, H, W) stored as NHWC
_WEIGHT: Order = (2, 3, 1, 0)  # (O, I, R, S) stored as RSIO
# the order a convolution or pooling wants each operand in, and gives its result
_CONVOLUTION: dict[str, tuple[Order, Order | None, Order]] = {
    "conv2d": (_ACTIVATION, _WEIGHT, _ACTIVATION),
    "conv2d_input_grad": (_ACTIVATION, _WEIGHT, _ACTIVATION),
    "conv2d_weight_grad": (_ACTIVATION, _ACTIVATION, _WEIGHT),
    "max_pool2d": (_ACTIVATION, None, _ACTIVATION),
    "max_pool2d_index": (_ACTIVATION, None, _ACTIVATION),
    "max_pool2d_input_grad": (_ACTIVATION, _ACTIVATION, _ACTIVATION),
    "avg_pool2d": (_ACTIVATION, None, _ACTIVATION),
    "avg_pool2d_input_grad": (_ACTIVATION, None, _ACTIVATION),
}
_VECTOR = 4  # channels, the fewest that are read together
_FOLLOWS = (Kind.MAP, Kind.MOVE)


def choose_layout(graph: Graph, orders: Mapping[str, Order] | None = None) -> Graph:
    """Store images channels-last, weights as their first reader wants them, the rest alike.

    A value's order is what its readers want, told backwards through elementwise ops and permutes;
    where nobody cares it follows its operands. A reshape that its source's order forbids, and
    a convolution's activation that is not channels-last, get an explicit ``copy``; but pictures of
    a few channels are read as they lie.

    before::

        %x: f32[2x6x8x8] = input('x')
        %w: f32[4x6x1x1] = param('w')
        %conv2d: f32[2x4x8x8] = conv2d(%x, %w, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        return loss=None, outputs=(%conv2d,), gradients={}, updates=()

    after::

        %x: f32[2x6x8x8] = input('x')
        %w: f32[4x6x1x1]@2.3.1.0 = param('w')
        %copy: f32[2x6x8x8]@0.2.3.1 = copy(%x)
        %conv2d: f32[2x4x8x8]@0.2.3.1 = conv2d(%copy, %w, (1, 1), (0, 0, 0, 0), (1, 1), 1)
        return loss=None, outputs=(%conv2d,), gradients={}, updates=()

    Source: PockEngine, section 3 (layout selection ahead of time).

    Args:
        graph: any graph.
        orders: storage orders of parameters, constants and state that are decided already, by
            canonical name: another entry point of the same trainer chose them.
    """
    new = rebuild(graph)
    decided = orders or {}
    first = {**_wanted(new, updates=False), **_decided(new, decided)}
    _order_placeholders(new, first, (Role.PARAM, Role.CONST))
    wanted = {**_wanted(new, updates=True), **_decided(new, decided)}
    _order_placeholders(new, wanted, (Role.STATE,))
    for node in calls(new):
        if kind_of(node) is not Kind.VIEW:
            order = _result_order(node, wanted)
            if order is not None:
                set_type(node, type_of(node).ordered(order))
    return _with_copies(new)


def _decided(graph: Graph, orders: Mapping[str, Order]) -> dict[Node, Order]:
    """The placeholders whose orders are given."""
    nodes = graph.find_nodes(op="placeholder")
    return {node: orders[name_of(node)] for node in nodes if name_of(node) in orders}


def _order_placeholders(graph: Graph, wanted: dict[Node, Order], roles: tuple[Role, ...]) -> None:
    for node in graph.find_nodes(op="placeholder"):
        if role_of(node) in roles and node in wanted:
            set_type(node, type_of(node).ordered(wanted[node]))


def _wanted(graph: Graph, *, updates: bool) -> dict[Node, Order]:
    """The order in which each value's readers would like it, where they have a wish."""
    wanted: dict[Node, Order] = {}
    for node in reversed(graph.nodes):
        wishes = [
            wish for user in node.users for wish in _wishes(user, node, wanted, updates=updates)
        ]
        if wishes:
            strongest = max(wishes, key=lambda wish: wish[0])
            wanted[node] = strongest[1]
    return wanted


def _wishes(user: Node, node: Node, wanted: Mapping[Node, Order], *, updates: bool) -> list[Wish]:
    """What one reader states for one operand; updates only where they are asked."""
    if op_name(user) == "update" and not updates:
        return []
    return _WISHES.get(op_name(user), _of_follower)(user, node, wanted)


def _of_convolution(user: Node, node: Node, wanted: Mapping[Node, Order]) -> list[Wish]:
    del wanted
    return [(3, order) for operand, order in _asked(user) if operand is node and order]


def _asked(convolution: Node) -> list[tuple[Any, Order | None]]:
    """The operands of a convolution or pooling, and the order it wants each in.

    A picture of a few channels may lie as it comes: they fill no vector, and a dense convolution
    reads it element by element.
    """
    name, operands = op_name(convolution), convolution.args[:2]
    orders: list[Order | None] = list(_CONVOLUTION[name][:2])
    picture: Any = operands[0]
    dense = name in ("conv2d", "conv2d_weight_grad") and convolution.args[-1] == 1
    if dense and type_of(picture).shape[1] < _VECTOR:
        orders[0] = None
    return list(zip(operands, orders, strict=False))


def _of_update(user: Node, node: Node, wanted: Mapping[Node, Order]) -> list[Wish]:
    """A state lies like the parameter it serves: only parameters have a say."""
    del wanted
    target: Any = user.args[0]
    if role_of(base_of(target)) is not Role.PARAM or user.args[1] is not node:
        return []
    order = storage_order(target)
    return [(4, order)] if order else []


def _of_matmul(user: Node, node: Node, wanted: Mapping[Node, Order]) -> list[Wish]:
    del wanted
    return [(2, _row_major(node))] if user.args[1] is node else []


def _of_reshape(user: Node, node: Node, wanted: Mapping[Node, Order]) -> list[Wish]:
    del user, wanted
    return [(1, _row_major(node))] if len(type_of(node).shape) > 1 else []


def _of_permute(user: Node, node: Node, wanted: Mapping[Node, Order]) -> list[Wish]:
    del node
    permutation: Any = user.args[1]
    return [(2, tuple(permutation[a] for a in wanted[user]))] if user in wanted else []


def _of_slice(user: Node, node: Node, wanted: Mapping[Node, Order]) -> list[Wish]:
    del node
    return [(2, wanted[user])] if user in wanted else []


def _of_follower(user: Node, node: Node, wanted: Mapping[Node, Order]) -> list[Wish]:
    follows = kind_of(user) in _FOLLOWS and type_of(user).shape == type_of(node).shape
    return [(2, wanted[user])] if follows and user in wanted else []


def _row_major(node: Node) -> Order:
    return tuple(range(len(type_of(node).shape)))


_WISHES: dict[str, Callable[[Node, Node, Mapping[Node, Order]], list[Wish]]] = {
    **dict.fromkeys(_CONVOLUTION, _of_convolution),
    "matmul": _of_matmul,
    "permute": _of_permute,
    "reshape": _of_reshape,
    "slice": _of_slice,
    "update": _of_update,
}


def _result_order(node: Node, wanted: dict[Node, Order]) -> Order | None:
    if op_name(node) in _CONVOLUTION:
        return _CONVOLUTION[op_name(node)][2]
    if op_name(node) in ("sort_places", "cumsum", "cumprod"):
        return _row_major(node)
    if node in wanted:
        return wanted[node]
    rank = len(type_of(node).shape)
    for operand in node.all_input_nodes:
        alike = type_of(operand).size == type_of(node).size or op_name(node) in ("pad", "cat")
        if kind_of(node) in _FOLLOWS and len(type_of(operand).shape) == rank and alike:
            return storage_order(operand)
    return None


def _with_copies(graph: Graph) -> Graph:
    def visit(new: Graph, node: Node, moved: object) -> Node | None:
        assert callable(moved)
        name = op_name(node)
        if name == "reshape":
            source = moved(node.args[0])
            made = emit(new, "reshape", source, node.args[1])
            if access(made) is not None:
                return made
            new.erase_node(made)
            return emit(new, "reshape", emit(new, "copy", source), node.args[1])
        if name in _CONVOLUTION:
            operands = [
                _stored(new, moved(operand), order) if order == _ACTIVATION else moved(operand)
                for operand, order in _asked(node)
            ]
            made = emit(new, name, *operands, *node.args[2:])
            set_type(made, type_of(node))
            return made
        return None

    return rebuild(graph, visit)


def _stored(graph: Graph, node: Node, order: Order) -> Node:
    """The value with its channels next to each other in memory and nothing broadcast."""
    found = access(node)
    shape = type_of(node).shape
    if found is not None and _channels_last(found.strides, shape):
        return node
    made = emit(graph, "copy", node)
    set_type(made, type_of(made).ordered(order))
    return made


def _channels_last(strides: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    whole = all(stride > 0 for stride, extent in zip(strides, shape, strict=True) if extent > 1)
    return whole and (strides[1] == 1 or shape[1] == 1)
