"""Compute only the part of a weight's gradient that a scheme updates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import TypeAlias

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Argument,
    Outputs,
    ancestors,
    emit,
    is_op,
    kind_of,
    op_name,
    placeholders,
    rebuild,
    role_of,
    scope_of,
    type_of,
)
from pockengine.ir.ops import Kind
from pockengine.ir.types import Region
from pockengine.ir.verify import base_of
from pockengine.scheme import Channels


def slice_channels(graph: Graph, channels: Mapping[str, Channels]) -> Graph:
    """Replace gradients of whole weights by gradients of their leading slices.

    The slice moves up from the gradient to the values that it is computed from, as far as nothing
    else reads what lies between. Where it reaches a value of the forward pass, it takes a small
    copy there, so that the copy is what the backward pass keeps, not the whole value.

    before::

        %x: f32[4x8] = input('x')
        %w: f32[2x8] = param('w')
        %h: f32[4x8] = exp(%x)
        %wt: f32[8x2] = permute(%w, (1, 0))
        %y: f32[4x2] = matmul(%h, %wt)
        %dy: f32[4x2] = neg(%y)
        %dyt: f32[2x4] = permute(%dy, (1, 0))
        %dw: f32[2x8] = matmul(%dyt, %h)
        return loss=None, outputs=(%y,), gradients={'w': %dw}, updates=()

    after (``channels={"w": Channels(1, 2)}``)::

        %x: f32[4x8] = input('x')
        %w: f32[2x8] = param('w')
        %h: f32[4x8] = exp(%x)
        %slice_1: f32[4x2] = slice(%h, 1, 0, 2)
        %copy: f32[4x2] = copy(%slice_1)
        %wt: f32[8x2] = permute(%w, (1, 0))
        %y: f32[4x2] = matmul(%h, %wt)
        %dy: f32[4x2] = neg(%y)
        %dyt: f32[2x4] = permute(%dy, (1, 0))
        %matmul: f32[2x2] = matmul(%dyt, %copy)
        return loss=None, outputs=(%y,), gradients={'w': %matmul}, updates=()

    Not moved through an op without a rule below, nor through a value that something else reads as
    well (a gradient that BatchNorm's scale needs whole): there the slice stays, as a view. Source:
    PockEngine, "channel sparsity".

    Args:
        graph: a joint graph with gradients and no updates.
        channels: the part of each weight, by canonical name; names without a gradient are passed
            over.
    """
    if not channels:
        return graph

    def sliced(found: Outputs) -> Outputs:
        slicer = _Slicer(found)
        gradients = {
            name: slicer.slice(node, channels[name].axis, channels[name].count)
            if name in channels
            else node
            for name, node in found.gradients.items()
        }
        return replace(found, gradients=gradients)

    return rebuild(graph, outputs=sliced)


@dataclass(frozen=True, slots=True)
class _Request:
    """The first ``count`` indices of ``axis`` of ``node``."""

    node: Node
    axis: int
    count: int

    @property
    def args(self) -> tuple[Argument, ...]:
        """The arguments of the call that makes the value."""
        return self.node.args

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the slice."""
        shape = type_of(self.node).shape
        return (*shape[: self.axis], self.count, *shape[self.axis + 1 :])


class _Slicer:
    """Emits slices of a graph's values, each one once."""

    def __init__(self, found: Outputs) -> None:
        self._graph = found.nodes[0].graph
        head = () if found.loss is None else (found.loss,)
        self._forward = ancestors((*head, *found.outputs))
        self._users = {node: self._readers(found, node) for node in self._graph.nodes}
        self._made: dict[_Request, Node] = {}

    @staticmethod
    def _readers(found: Outputs, node: Node) -> int:
        """How many readers a value has, the graph's outputs among them."""
        return len(node.users) + sum(node is yielded for yielded in found.nodes)

    def slice(self, node: Node, axis: int, count: int) -> Node:
        """The first ``count`` indices of an axis of a value."""
        if count == type_of(node).shape[axis]:
            return node
        asked = _Request(node, axis, count)
        if asked not in self._made:
            self._made[asked] = self._slice(asked)
        return self._made[asked]

    def emit(self, like: Node, op: str, *args: Argument) -> Node:
        """Append a call that stands for part of another."""
        return emit(self._graph, op, *args, scope=scope_of(like))

    def _slice(self, asked: _Request) -> Node:
        node = asked.node
        forward = node in self._forward
        through = is_op(node, "reshape", "permute") if forward else self._users[node] == 1
        rule = _rule_of(node) if through else None
        made = rule(self, asked) if rule else None
        if made is not None:
            return made
        return self._saved(asked) if forward else self._view(asked)

    def _view(self, asked: _Request) -> Node:
        return self.emit(asked.node, "slice", asked.node, asked.axis, 0, asked.count)

    def _saved(self, asked: _Request) -> Node:
        """A copy taken where the forward pass makes the value; parameters need none."""
        first = asked.node.op == "placeholder"
        place = list(placeholders(self._graph))[-1] if first else asked.node
        with self._graph.inserting_after(place):
            view = self._view(asked)
        if _is_resident(asked.node):
            return view
        with self._graph.inserting_after(view):
            return self.emit(asked.node, "copy", view)


_Rule: TypeAlias = Callable[[_Slicer, _Request], "Node | None"]


def _permute(to: _Slicer, asked: _Request) -> Node:
    x, order = asked.args
    return to.emit(asked.node, "permute", to.slice(x, order[asked.axis], asked.count), order)


def _reshape(to: _Slicer, asked: _Request) -> Node | None:
    """Applies where the axis is one of the input's as well."""
    x, shape = asked.args
    source = type_of(x).shape
    ahead, extent = prod(shape[: asked.axis]), shape[asked.axis]
    for axis, found in enumerate(source):
        if found == extent and prod(source[:axis]) == ahead:
            return to.emit(asked.node, "reshape", to.slice(x, axis, asked.count), asked.shape)
    return None


def _expand(to: _Slicer, asked: _Request) -> Node:
    return to.emit(asked.node, "expand", _operand(to, asked, asked.args[0]), asked.shape)


def _operand(to: _Slicer, asked: _Request, argument: Argument) -> Argument:
    """The part of a broadcast operand that the slice needs."""
    if not isinstance(argument, Node):
        return argument
    shape = type_of(argument).shape
    axis = asked.axis - len(type_of(asked.node).shape) + len(shape)
    whole = axis < 0 or shape[axis] == 1
    return argument if whole else to.slice(argument, axis, asked.count)


def _elementwise(to: _Slicer, asked: _Request) -> Node:
    operands = [_operand(to, asked, argument) for argument in asked.args]
    return to.emit(asked.node, op_name(asked.node), *operands)


def _generator(to: _Slicer, asked: _Request) -> Node:
    return to.emit(asked.node, op_name(asked.node), asked.shape, *asked.args[1:])


def _sum(to: _Slicer, asked: _Request) -> Node:
    x, axes, *keep = asked.args
    rank = len(type_of(x).shape)
    kept = range(rank) if keep and keep[0] else [a for a in range(rank) if a not in axes]
    return to.emit(asked.node, "sum", to.slice(x, kept[asked.axis], asked.count), axes, *keep)


def _matmul(to: _Slicer, asked: _Request) -> Node:
    a, b = asked.args
    rank = len(type_of(asked.node).shape)
    if asked.axis != rank - 1:
        a = to.slice(a, asked.axis, asked.count)
    if asked.axis != rank - 2:
        b = to.slice(b, asked.axis, asked.count)
    return to.emit(asked.node, "matmul", a, b)


def _weight_grad(to: _Slicer, asked: _Request) -> Node | None:
    """Axis 1 is channels of x; axis 0 those of the gradient, of a depthwise weight of both."""
    x, grad, *geometry, groups = asked.args
    if groups == 1:
        part = (x, grad) if asked.axis == 1 else (grad, x)
        if asked.axis > 1:
            return None
        small = to.slice(part[0], 1, asked.count)
        pair = (small, grad) if asked.axis == 1 else (x, small)
        return to.emit(asked.node, "conv2d_weight_grad", *pair, *geometry, 1)
    outputs = type_of(grad).shape[1] // groups  # for each channel
    if asked.axis != 0 or type_of(x).shape[1] != groups or asked.count % outputs:
        return None
    fewer = asked.count // outputs
    pair = (to.slice(x, 1, fewer), to.slice(grad, 1, asked.count))
    return to.emit(asked.node, "conv2d_weight_grad", *pair, *geometry, fewer)


def _sum_rows(to: _Slicer, asked: _Request) -> Node | None:
    if asked.axis == 0:
        return None
    rows, inverse = asked.args
    last = len(type_of(rows).shape) - 1
    small = to.slice(rows, last, asked.count)
    return to.emit(asked.node, "sum_rows", small, inverse)


_RULES: dict[str, _Rule] = {
    "permute": _permute,
    "reshape": _reshape,
    "expand": _expand,
    "full": _generator,
    "iota": _generator,
    "sum": _sum,
    "matmul": _matmul,
    "conv2d_weight_grad": _weight_grad,
    "sum_rows": _sum_rows,
}
# their operands are channels, or not aligned with the result from the right
_STAY = ("batch_norm", "batch_norm_input_grad")


def _rule_of(node: Node) -> _Rule | None:
    """How a slice moves through a value; None where it stays."""
    if node.op != "call_function":
        return None
    name = op_name(node)
    pointwise = kind_of(node) is Kind.MAP and name not in _STAY
    return _RULES.get(name, _elementwise if pointwise else None)


def _is_resident(node: Node) -> bool:
    """Whether a value's bytes outlive the step: a parameter or constant, or a view of one."""
    role = role_of(base_of(node))
    return role is not None and role.region is not Region.ARENA
