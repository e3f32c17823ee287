"""Turn gradients into updates: the optimizer becomes part of the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar

from torch.fx import Graph, Node

from pockengine.ir.graph import (
    Argument,
    Outputs,
    calls,
    emit,
    name_of,
    outputs_of,
    placeholder,
    placeholders,
    rebuild,
    type_of,
)
from pockengine.ir.types import Role, TensorType
from pockengine.optimizer import (
    CORRECTION,
    SGD,
    AdamW,
    Optimizer,
    Settings,
    check_groups,
    settings,
    state_name,
)
from pockengine.scheme import Channels

LEARNING_RATE = "lr"


def append_optimizer(
    graph: Graph, optimizer: Optimizer, channels: Mapping[str, Channels] | None = None
) -> Graph:
    """Replace gradients by the updates of parameters and of the optimizer's state.

    before::

        %w: f32[8x4] = param('w')
        %x: f32[8x2] = input('x')
        %dw: f32[8x2] = neg(%x)
        return loss=None, outputs=(), gradients={'w': %dw}, updates=()

    after (``SGD(momentum=0.9)``, ``channels={"w": Channels(1, 2)}``)::

        %w: f32[8x4] = param('w')
        %x: f32[8x2] = input('x')
        %lr: f32[] = hyper('lr')
        %optimizer_momentum_buffer_w: f32[8x2] = state('optimizer.momentum_buffer.w')
        %dw: f32[8x2] = neg(%x)
        %slice_1: f32[8x2] = slice(%w, 1, 0, 2)
        %mul: f32[8x2] = mul(%optimizer_momentum_buffer_w, 0.9)
        %add: f32[8x2] = add(%mul, %dw)
        %update: f32[8x2] = update(%optimizer_momentum_buffer_w, %add)
        %mul_1: f32[8x2] = mul(%add, %lr)
        %sub: f32[8x2] = sub(%slice_1, %mul_1)
        %update_1: f32[8x2] = update(%slice_1, %sub)
        return loss=None, outputs=(), gradients={}, updates=(%update, %update_1)

    The formulas are those of ``torch.optim``. Not applied to a graph without gradients. Source:
    PockEngine, "operator reordering and in-place update": updates are nodes that can run early.

    Args:
        graph: a pruned and sliced joint graph.
        optimizer: what to write.
        channels: the slice of each parameter whose gradient is that of a slice.

    Raises:
        InputError: a parameter group matches no parameter.
    """
    found = outputs_of(graph)
    if not found.gradients:
        return graph
    parameters = {name_of(node) for node in placeholders(graph, Role.PARAM, Role.CONST)}
    check_groups(optimizer, sorted(parameters))
    slices = channels or {}
    return rebuild(graph, outputs=lambda new: _Writer(optimizer, new, slices).outputs())


_T = TypeVar("_T")


@dataclass(slots=True)
class _Writer:
    """Emits the updates behind a new graph's last gradient."""

    optimizer: Optimizer
    found: Outputs
    channels: Mapping[str, Channels]
    graph: Graph = field(init=False)
    extra: dict[str, Node] = field(init=False)
    scalars: dict[tuple[Argument, ...], Argument] = field(default_factory=dict)
    updates: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        gradients = self.found.gradients
        self.graph = next(iter(gradients.values())).graph
        types = {LEARNING_RATE: TensorType(())}
        state = self.optimizer.state({name: type_of(node) for name, node in gradients.items()})
        first = next(calls(self.graph), None)
        self.extra = {}
        with self.graph.inserting_before(first):
            for name, kind in {**types, **state}.items():
                role = Role.HYPER if name == LEARNING_RATE else Role.STATE
                plain = TensorType(kind.shape, kind.dtype)
                self.extra[name] = placeholder(self.graph, name, plain, role)

    def outputs(self) -> Outputs:
        """The outputs with updates in the place of gradients."""
        owned = {name_of(node): node for node in placeholders(self.graph, Role.PARAM)}
        for name, gradient in self.found.gradients.items():
            target, part = owned[name], self.channels.get(name)
            if part is not None:
                target = self.emit("slice", target, part.axis, 0, part.count)
            chosen = settings(self.optimizer, name)
            value = _RULES[type(self.optimizer)](self, name, target, gradient, chosen)
            self.update(target, value)
        updates = (*self.found.updates, *self.updates)
        return Outputs(self.found.loss, self.found.outputs, {}, updates)

    def emit(self, op: str, *args: Argument) -> Node:
        """Append a call."""
        return emit(self.graph, op, *args)

    def update(self, target: Node, value: Node) -> None:
        """Append an update."""
        self.updates.append(self.emit("update", target, value))

    def state(self, kind: str, name: str) -> Node:
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
        found: _T = self.scalars[key]
        return found


def _sgd(to: _Writer, name: str, target: Node, gradient: Node, chosen: Settings) -> Node:
    optimizer = to.optimizer
    assert isinstance(optimizer, SGD)
    step = gradient
    if chosen.weight_decay != 0:
        step = to.emit("add", step, to.emit("mul", target, chosen.weight_decay))
    if optimizer.momentum != 0:
        buffer = to.state("momentum_buffer", name)
        kept = to.emit("add", to.emit("mul", buffer, optimizer.momentum), step)
        to.update(buffer, kept)
        ahead = to.emit("mul", kept, optimizer.momentum) if optimizer.nesterov else None
        step = kept if ahead is None else to.emit("add", step, ahead)
    return to.emit("sub", target, to.emit("mul", step, to.rate(chosen)))


def _adamw(to: _Writer, name: str, target: Node, gradient: Node, chosen: Settings) -> Node:
    optimizer = to.optimizer
    assert isinstance(optimizer, AdamW)
    first, second = optimizer.betas
    mean, square = to.state("exp_avg", name), to.state("exp_avg_sq", name)
    new_mean = _towards(to, mean, gradient, 1 - first)
    scaled = to.emit("mul", to.emit("mul", gradient, gradient), 1 - second)
    new_square = to.emit("add", to.emit("mul", square, second), scaled)
    to.update(mean, new_mean)
    to.update(square, new_square)
    correction, root = to.once(("corrections",), lambda: _corrections(to, optimizer))
    rate = to.rate(chosen)
    size = to.once(("size", chosen.lr_scale), lambda: to.emit("div", rate, correction))
    below = to.emit("add", to.emit("div", to.emit("sqrt", new_square), root), optimizer.eps)
    value = target
    if chosen.weight_decay != 0:
        value = to.emit("mul", value, to.once(("keep", chosen), lambda: _kept(to, rate, chosen)))
    return to.emit("sub", value, to.emit("mul", to.emit("div", new_mean, below), size))


def _kept(to: _Writer, rate: Node, chosen: Settings) -> Node:
    """What weight decay leaves of a parameter: 1 - lr * weight_decay."""
    return to.emit("sub", 1.0, to.emit("mul", rate, chosen.weight_decay))


def _corrections(to: _Writer, optimizer: AdamW) -> tuple[Node, Node]:
    """1 - beta1^t and the root of 1 - beta2^t, this step counted."""
    found = []
    for name, beta in zip(CORRECTION, optimizer.betas, strict=True):
        state = to.extra[name]
        value = _towards(to, state, 1.0, 1 - beta)
        to.update(state, value)
        found.append(value)
    return found[0], to.emit("sqrt", found[1])


def _towards(to: _Writer, start: Node, end: Argument, share: float) -> Node:
    """Go from start to end by a share of the way."""
    return to.emit("add", start, to.emit("mul", to.emit("sub", end, start), share))


_Rule: TypeAlias = Callable[[_Writer, str, Node, Node, Settings], Node]
_RULES: dict[type[Optimizer], _Rule] = {SGD: _sgd, AdamW: _adamw}
