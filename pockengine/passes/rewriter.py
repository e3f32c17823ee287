"""Emitting into a graph under construction, each call once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from inspect import signature
from types import MappingProxyType
from typing import cast

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Argument,
    copy_node,
    emit,
    op_name,
    scope_of,
    type_of,
)
from pockengine.ir.ops import OPS

_COMMUTATIVE = frozenset(
    {"add", "mul", "maximum", "minimum", "eq", "ne", "logical_and", "logical_or"}
)
_NONE: Mapping[str, Argument] = MappingProxyType({})
Key = tuple[object, ...]


class Rewriter:
    """What a pass writes into; equal calls (same op, same arguments) share one node.

    ``graph`` is the one under construction, ``scope`` that of the old node being visited.
    """

    def __init__(self) -> None:
        self.graph = Graph()
        self.scope = ""
        self._made: dict[Key, Node] = {}

    def at(self, graph: Graph, node: Node) -> None:
        """Turn to an old node (called first in a ``rebuild`` visit)."""
        self.graph = graph
        self.scope = scope_of(node)

    def emit(self, op: str, *args: Argument) -> Node:
        """A call of an op: the one that is there, or a new one."""
        found = self.find(op, args)
        if found is None:
            found = emit(self.graph, op, *args, scope=self.scope)
            self._made[_key(op, args, {})] = found
        return found

    def find(
        self, op: str, args: tuple[Argument, ...], kwargs: Mapping[str, Argument] = _NONE
    ) -> Node | None:
        """The call that is there already."""
        return self._made.get(_key(op, args, kwargs))

    def keep(self, node: Node, moved: Callable[[Argument], Argument]) -> Node:
        """Copy an old call as it is, so that later calls may share it."""
        copied = copy_node(self.graph, node, moved)
        if not type_of(node).order:
            self._made.setdefault(_key(op_name(node), copied.args, copied.kwargs), copied)
        return copied

    def reshape(self, x: Node, shape: tuple[int, ...]) -> Node:
        """A value in a shape."""
        return x if type_of(x).shape == shape else self.emit("reshape", x, shape)

    def expand(self, x: Node, shape: tuple[int, ...]) -> Node:
        """A value broadcast to a shape, ranks aligned first."""
        have = type_of(x).shape
        if have == shape:
            return x
        return self.emit("expand", self.reshape(x, aligned(have, len(shape))), shape)


def aligned(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """A shape with extents of one in front, up to a rank."""
    return (1,) * (rank - len(shape)) + shape


def _key(op: str, args: tuple[Argument, ...], kwargs: Mapping[str, Argument]) -> Key:
    """What makes two calls equal: the op and its arguments, defaults filled in."""
    rest = _defaults(op)[len(args) :]
    full = (*args, *(kwargs.get(name, default) for name, default in rest))
    items = [_literal(argument) for argument in full]
    if op in _COMMUTATIVE:
        items.sort(key=id if all(isinstance(item, Node) for item in items) else _is_literal)
    return (op, *items)


@cache
def _defaults(op: str) -> tuple[tuple[str, Argument], ...]:
    """The parameters of an op with their defaults."""
    parameters = signature(OPS[op].reference).parameters.values()
    return tuple((each.name, each.default) for each in parameters)


def _is_literal(item: object) -> bool:
    return not isinstance(item, Node)


def _literal(argument: Argument) -> object:
    """1, 1.0 and True are equal in Python but not the same literal; NaN is the same as itself."""
    if isinstance(argument, (tuple, list)):
        return tuple(_literal(item) for item in argument)
    if isinstance(argument, Node):
        return argument
    return (type(argument), repr(argument))


def as_node(argument: Argument) -> Node:
    """An argument that is known to be a value."""
    return cast("Node", argument)
