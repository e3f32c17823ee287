"""The table of rules and what a rule is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch.fx import Graph, Node

from pockengine.ir.draws import SEED, STEP
from pockengine.ir.graph import Bounds, emit, placeholder, type_of
from pockengine.ir.types import DType, Role, TensorType

Value: TypeAlias = Any  # an IR node, a number, None or a tuple of these


class Legalizer:
    """What a rule writes into: an IR graph and the ATen node that it stands for.

    ``parts`` are the slices of inputs that were used as indices, and what each may hold.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.node: Node
        self.parts: dict[Node, list[tuple[Node, Bounds]]] = {}
        self._draws = 0
        self._generator: tuple[Node, Node] | None = None

    def emit(self, op: str, *args: Value, **kwargs: Value) -> Node:
        """Append a call of the vocabulary."""
        return emit(self.graph, op, *args, **kwargs)

    def uniform(self, shape: tuple[int, ...]) -> Node:
        """A draw of its own: float32 in [0, 1), other numbers in every step."""
        if self._generator is None:
            seed, step = (
                placeholder(self.graph, name, TensorType((), DType.I64), Role.STATE)
                for name in (SEED, STEP)
            )
            self._generator = seed, step
        self._draws += 1
        return self.emit("uniform", *self._generator, shape, self._draws - 1)

    def advanced(self) -> tuple[Node, ...]:
        """The update that takes random numbers to the next step, if there are any."""
        if self._generator is None:
            return ()
        step = self._generator[1]
        return (self.emit("update", step, self.emit("add", step, 1)),)

    @property
    def result(self) -> torch.Tensor:
        """The ATen node's (first) result as a fake tensor: shape and dtype."""
        value = self.node.meta["val"]
        found: torch.Tensor = value[0] if isinstance(value, (tuple, list)) else value
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """The ATen node's result shape."""
        return tuple(int(extent) for extent in self.result.shape)

    @property
    def dtype(self) -> DType:
        """The ATen node's result dtype."""
        return DType.of(self.result.dtype)

    def cast(self, value: Value, dtype: DType) -> Value:
        """A value in a dtype; numbers stay numbers."""
        if not isinstance(value, Node) or type_of(value).dtype is dtype:
            return value
        return self.emit("cast", value, dtype.value)

    def reshape(self, value: Node, shape: tuple[int, ...]) -> Node:
        """A value in a shape."""
        return value if type_of(value).shape == shape else self.emit("reshape", value, shape)

    def permute(self, value: Node, order: tuple[int, ...]) -> Node:
        """A value with its axes permuted."""
        return value if order == tuple(range(len(order))) else self.emit("permute", value, order)

    def expand(self, value: Node, shape: tuple[int, ...]) -> Node:
        """A value broadcast to a shape."""
        have = type_of(value).shape
        if have == shape:
            return value
        aligned = self.reshape(value, (1,) * (len(shape) - len(have)) + have)
        return self.emit("expand", aligned, shape)


Rule: TypeAlias = Callable[..., Value]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of ATen ops (``aten.add.Tensor`` is ``add.Tensor``)."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def axis_of(axis: int, rank: int) -> int:
    """A possibly negative axis as 0 <= axis < rank."""
    return axis % rank if rank else 0
