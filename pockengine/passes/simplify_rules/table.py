"""The table of rules and what a rule is given.

A rule reads ``before -> after`` in its docstring; x, y and m (a mask) are values, c and d numbers.
It makes new calls only once it is sure; a result of another type than the call's is refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeGuard, cast

from torch.fx import Node

from pockengine.ir.graph import Argument, is_op, type_of


class Emitter(Protocol):
    """What a rule writes into."""

    def emit(self, op: str, *args: Argument) -> Node:
        """Append a call of an op, itself simplified, or find it."""

    def reshape(self, x: Node, shape: tuple[int, ...]) -> Node:
        """Give a value a shape."""

    def expand(self, x: Node, shape: tuple[int, ...]) -> Node:
        """Broadcast a value to a shape."""

    def is_read_once(self, node: Node) -> bool:
        """Whether one call reads a value."""


Rule: TypeAlias = Callable[..., Node | None]
RULES: defaultdict[str, list[Rule]] = defaultdict(list)


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Enter a function as a rule of ops; an op's rules are tried in order."""

    def register(function: Rule) -> Rule:
        for op in ops:
            RULES[op].append(function)
        return function

    return register


def is_call(x: Argument, *ops: str) -> TypeGuard[Node]:
    """Whether an argument is a call of one of the ops."""
    return is_op(x, *ops)


def is_number(x: Argument) -> TypeGuard[float]:
    """Whether an argument is an immediate."""
    return isinstance(x, (int, float))


def is_float(x: Argument) -> bool:
    """Whether an argument is a value of a floating-point dtype."""
    return isinstance(x, Node) and type_of(x).dtype.is_float


def arguments(x: Node) -> tuple[Any, ...]:
    """The arguments of a call."""
    return cast("tuple[Any, ...]", x.args)


def operand(x: Node) -> Node:
    """The first argument of a call."""
    return cast("Node", x.args[0])
