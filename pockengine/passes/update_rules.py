"""What each optimizer does to a parameter: a row for each, the formulas of ``torch.optim``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch.fx import Node

from pockengine.optimizer import (
    CORRECTION,
    SGD,
    STEPS,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    Optimizer,
    RMSprop,
    Settings,
)
from pockengine.passes.update_writer import Writer

Rule: TypeAlias = Callable[[Writer, str, Node, Node, Settings], Node]
"""(writer, name, parameter, gradient, settings) -> new parameter; writes the state's updates."""


def _sgd(to: Writer, name: str, target: Node, gradient: Node, chosen: Settings) -> Node:
    optimizer = to.optimizer
    assert isinstance(optimizer, SGD)
    step = _decayed(to, target, gradient, chosen)
    if optimizer.momentum != 0:
        buffer = to.of("momentum_buffer", name)
        decay = to.begun(optimizer.momentum, 1.0)
        kept = to.emit("add", to.emit("mul", buffer, decay), step)
        to.update(buffer, kept, each_round=to.first is not None)
        ahead = to.emit("mul", kept, optimizer.momentum) if optimizer.nesterov else None
        step = kept if ahead is None else to.emit("add", step, ahead)
    return to.emit("sub", target, to.emit("mul", step, to.rate(chosen)))


def _adam(to: Writer, name: str, target: Node, gradient: Node, chosen: Settings) -> Node:
    return _adaptive(to, name, target, _decayed(to, target, gradient, chosen), chosen)


def _adamw(to: Writer, name: str, target: Node, gradient: Node, chosen: Settings) -> Node:
    return _adaptive(to, name, _shrunk(to, target, chosen), gradient, chosen)


def _adaptive(to: Writer, name: str, value: Node, gradient: Node, chosen: Settings) -> Node:
    """The step that Adam and AdamW take from a value."""
    optimizer = to.optimizer
    assert isinstance(optimizer, Adam)
    first, second = optimizer.betas
    mean = to.of("exp_avg", name)
    new_mean = to.towards(mean, gradient, 1 - first)
    to.update(mean, new_mean)
    new_square = _mean_square(to, to.of("exp_avg_sq", name), gradient, second)
    if optimizer.amsgrad:
        largest = to.of("max_exp_avg_sq", name)
        new_square = to.emit("maximum", largest, new_square)
        to.update(largest, new_square)
    correction, root = to.once(("corrections",), lambda: _corrections(to, optimizer))
    rate = to.rate(chosen)
    size = to.once(("size", chosen.lr_scale), lambda: to.emit("div", rate, correction))
    below = to.emit("add", to.emit("div", to.emit("sqrt", new_square), root), optimizer.eps)
    return to.emit("sub", value, to.emit("mul", to.emit("div", new_mean, below), size))


def _corrections(to: Writer, optimizer: Adam) -> tuple[Node, Node]:
    """1 - beta1^t and the root of 1 - beta2^t, this step counted."""
    found = []
    for name, beta in zip(CORRECTION, optimizer.betas, strict=True):
        state = to.extra[name]
        value = to.towards(state, 1.0, 1 - beta)
        to.update(state, value)
        found.append(value)
    return found[0], to.emit("sqrt", found[1])


def _lion(to: Writer, name: str, target: Node, gradient: Node, chosen: Settings) -> Node:
    optimizer = to.optimizer
    assert isinstance(optimizer, Lion)
    first, second = optimizer.betas
    mean = to.of("exp_avg", name)
    direction = to.emit("sign", to.towards(mean, gradient, 1 - first))
    to.update(mean, to.towards(mean, gradient, 1 - second))
    value = _shrunk(to, target, chosen)
    return to.emit("sub", value, to.emit("mul", direction, to.rate(chosen)))


def _rmsprop(to: Writer, name: str, target: Node, gradient: Node, chosen: Settings) -> Node:
    optimizer = to.optimizer
    assert isinstance(optimizer, RMSprop)
    step = _decayed(to, target, gradient, chosen)
    square = _mean_square(to, to.of("square_avg", name), step, optimizer.alpha)
    if optimizer.centered:
        mean = to.of("grad_avg", name)
        new_mean = to.towards(mean, step, 1 - optimizer.alpha)
        to.update(mean, new_mean)
        square = to.emit("sub", square, to.emit("mul", new_mean, new_mean))
    step = to.emit("div", step, to.emit("add", to.emit("sqrt", square), optimizer.eps))
    if optimizer.momentum != 0:
        buffer = to.of("momentum_buffer", name)
        step = to.emit("add", to.emit("mul", buffer, optimizer.momentum), step)
        to.update(buffer, step)
    return to.emit("sub", target, to.emit("mul", step, to.rate(chosen)))


def _adagrad(to: Writer, name: str, target: Node, gradient: Node, chosen: Settings) -> Node:
    optimizer = to.optimizer
    assert isinstance(optimizer, Adagrad)
    step = _decayed(to, target, gradient, chosen)
    total = to.of("sum", name)
    new_total = to.emit("add", total, to.emit("mul", step, step))
    to.update(total, new_total)
    rate = to.rate(chosen)
    if optimizer.lr_decay != 0:
        slower = to.once(("slower",), lambda: _slower(to, optimizer))
        rate = to.once(("rate", chosen.lr_scale, "slow"), lambda: to.emit("div", rate, slower))
    below = to.emit("add", to.emit("sqrt", new_total), optimizer.eps)
    return to.emit("sub", target, to.emit("mul", to.emit("div", step, below), rate))


def _slower(to: Writer, optimizer: Adagrad) -> Node:
    """1 + lr_decay * t, for the step t from 0."""
    steps = to.extra[STEPS]
    to.update(steps, to.emit("add", steps, 1.0))
    return to.emit("add", to.emit("mul", steps, optimizer.lr_decay), 1.0)


def _mean_square(to: Writer, state: Node, gradient: Node, kept: float) -> Node:
    """A state that is the decaying mean of squares, this step's counted."""
    scaled = to.emit("mul", to.emit("mul", gradient, gradient), 1 - kept)
    value = to.emit("add", to.emit("mul", state, kept), scaled)
    to.update(state, value)
    return value


def _decayed(to: Writer, target: Node, gradient: Node, chosen: Settings) -> Node:
    """The gradient with weight decay in it."""
    if chosen.weight_decay == 0:
        return gradient
    decay = to.begun(chosen.weight_decay, 0.0)
    return to.emit("add", gradient, to.emit("mul", target, decay))


def _shrunk(to: Writer, target: Node, chosen: Settings) -> Node:
    """The parameter less its decoupled weight decay."""
    if chosen.weight_decay == 0:
        return target
    return to.emit("mul", target, to.once(("keep", chosen), lambda: _kept(to, chosen)))


def _kept(to: Writer, chosen: Settings) -> Node:
    """What weight decay leaves of a parameter: 1 - lr * weight_decay."""
    return to.emit("sub", 1.0, to.emit("mul", to.rate(chosen), chosen.weight_decay))


RULES: dict[type[Optimizer], Rule] = {
    SGD: _sgd,
    Adam: _adam,
    AdamW: _adamw,
    Lion: _lion,
    RMSprop: _rmsprop,
    Adagrad: _adagrad,
}
