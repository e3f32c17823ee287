"""Emits updates behind the gradients of a graph; ``update_rules`` has the formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Argument,
    Outputs,
    calls,
    emit,
    name_of,
    placeholder,
    placeholders,
)
from pockengine.ir.types import Role, TensorType
from pockengine.modes import FIRST_ROUND, LAST_ROUND, is_accumulator
from pockengine.optimizer import Optimizer, Settings, state_name
from pockengine.passes.split_batch import round_flag
from pockengine.scheme import Channels

LEARNING_RATE = "lr"
_T = TypeVar("_T")


@dataclass(slots=True)
class Writer:
    """Emits updates behind a graph's last gradient.

    Args:
        optimizer: whose state there is.
        found: what the graph yields; its gradients are of one graph, under construction.
        channels: the slice of each parameter whose gradient is that of a slice.
        state: types of all state, by name.

    Attributes:
        first: whether this round is a step's first, where gradients are those of a round each.
        last: whether it is the last; None where a step is one round.
    """

    optimizer: Optimizer
    found: Outputs
    channels: Mapping[str, Channels]
    state: Mapping[str, TensorType]
    graph: Graph = field(init=False)
    extra: dict[str, Node] = field(default_factory=dict)
    owned: dict[str, Node] = field(init=False)
    scalars: dict[tuple[Argument, ...], object] = field(default_factory=dict)
    updates: list[Node] = field(default_factory=list)
    first: Node | None = field(init=False)
    last: Node | None = field(init=False)

    def __post_init__(self) -> None:
        self.graph = next(iter(self.found.gradients.values())).graph
        first = next(calls(self.graph), None)
        with self.graph.inserting_before(first):
            for name, kind in {LEARNING_RATE: TensorType(()), **self.state}.items():
                role = Role.HYPER if name == LEARNING_RATE else Role.STATE
                plain = TensorType(kind.shape, kind.dtype)
                self.extra[name] = placeholder(self.graph, name, plain, role)
        self.last = round_flag(self.graph, LAST_ROUND)
        summed = any(is_accumulator(name_of(x)) for x in placeholders(self.graph, Role.STATE))
        self.first = None if summed else round_flag(self.graph, FIRST_ROUND)
        self.owned = {name_of(node): node for node in placeholders(self.graph, Role.PARAM)}

    def target(self, name: str) -> Node:
        """A parameter, or the slice of it that is updated."""
        part = self.channels.get(name)
        whole = self.owned[name]
        return whole if part is None else self.emit("slice", whole, part.axis, 0, part.count)

    def emit(self, op: str, *args: Argument) -> Node:
        """Append a call."""
        return emit(self.graph, op, *args)

    def update(self, target: Node, value: Node, *, each_round: bool = False) -> None:
        """Append an update; of the rounds of a step the last one makes it, if not each does."""
        if self.last is not None and not each_round:
            value = self.emit("where", self.last, value, target)
        self.updates.append(self.emit("update", target, value))

    def begun(self, first: float, later: float) -> Argument:
        """What is one number in a step's first round, and another in later ones."""
        if self.first is None:
            return first

        def chosen() -> Node:
            numbers = [self.emit("full", (), number, "f32") for number in (first, later)]
            return self.emit("where", self.first, *numbers)

        return self.once(("begun", first, later), chosen)

    def of(self, kind: str, name: str) -> Node:
        """The placeholder of a parameter's state."""
        return self.extra[state_name(kind, name)]

    def rate(self, chosen: Settings) -> Node:
        """The learning rate of a parameter."""
        rate = self.extra[LEARNING_RATE]
        if chosen.lr_scale == 1:
            return rate
        return self.once(("rate", chosen.lr_scale), lambda: self.emit("mul", rate, chosen.lr_scale))

    def once(self, key: tuple[Argument, ...], make: Callable[[], _T]) -> _T:
        """A value that all parameters share."""
        if key not in self.scalars:
            self.scalars[key] = make()
        found: _T = self.scalars[key]  # type: ignore[assignment]
        return found

    def towards(self, start: Node, end: Argument, share: float) -> Node:
        """Go from start to end by a share of the way."""
        return self.emit("add", start, self.emit("mul", self.emit("sub", end, start), share))
