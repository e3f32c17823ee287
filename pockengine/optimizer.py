"""Optimizers, as data: what ``append_optimizer`` writes into the graph, and the state it takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Self, TypeAlias, get_args

import torch
from torch import Tensor

from pockengine.checks import is_number
from pockengine.errors import InputError
from pockengine.ir.types import TensorType

PREFIX = "optimizer"
CORRECTION = (f"{PREFIX}.correction1", f"{PREFIX}.correction2")
STEPS = f"{PREFIX}.steps"


@dataclass(frozen=True, slots=True)
class ParamGroup:
    """What is different for some parameters.

    Args:
        match: a shell pattern of canonical names, such as ``"*.bias"``; case counts.
        weight_decay: instead of the optimizer's; None keeps it.
        lr_scale: the step's learning rate is multiplied by it.

    Raises:
        InputError: a negative or non-finite number, or an empty pattern.
    """

    match: str
    weight_decay: float | None = None
    lr_scale: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.match, str) or not self.match:
            wanted = 'Give one such as "*.bias"'
            raise _bad("ParamGroup(match)", repr(self.match), "a pattern of names", wanted)
        _check("ParamGroup(lr_scale)", self.lr_scale)
        if self.weight_decay is not None:
            _check("ParamGroup(weight_decay)", self.weight_decay)


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for one parameter."""

    weight_decay: float
    lr_scale: float


class _Rateless:
    """An optimizer without a learning rate of its own, which tells who gives it one."""

    __slots__ = ()

    def __new__(cls, *_args: object, **options: object) -> Self:
        """Refuse PyTorch's ``lr``.

        Raises:
            InputError: it is there.
        """
        if "lr" in options:
            raise _bad(
                f"{cls.__name__}(lr=...)",
                "a learning rate",
                "an optimizer without one: each step is given its own",
                "Leave it out, and call trainer.step(x, y, lr=...) or trainer.fit(..., lr=...)",
            )
        return super().__new__(cls)


@dataclass(frozen=True, slots=True)
class SGD(_Rateless):
    """``torch.optim.SGD`` without dampening; the learning rate is an argument of the step.

    Args:
        momentum: share of the last step's direction that is kept; 0 for no state at all.
        weight_decay: added to the gradient as ``weight_decay * parameter``.
        nesterov: look ahead by one momentum step.
        groups: exceptions; the first that matches a parameter holds.

    Raises:
        InputError: a negative or non-finite number, or Nesterov without momentum.
    """

    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    groups: tuple[ParamGroup, ...] = ()

    def __post_init__(self) -> None:
        _check_groups("SGD", self.groups)
        _check("SGD(momentum)", self.momentum)
        _check("SGD(weight_decay)", self.weight_decay)
        if self.nesterov and self.momentum == 0:
            raise _bad("SGD(nesterov)", "momentum 0", "a momentum above 0", "Set momentum=0.9")

    def state(self, updated: Mapping[str, TensorType]) -> dict[str, TensorType]:
        """The types of the state for what is updated, by name; it starts as zeros."""
        if self.momentum == 0:
            return {}
        return _of_each(("momentum_buffer",), updated)


@dataclass(frozen=True, slots=True)
class Adam(_Rateless):
    """``torch.optim.Adam``; the learning rate is an argument of the step.

    The bias corrections 1 - beta^t are state: c <- c + (1 - beta) (1 - c) from 0, which never
    cancels.

    Args:
        betas: decay of the mean of gradients and of their squares.
        eps: added to the root of the mean square.
        weight_decay: added to the gradient as ``weight_decay * parameter``.
        amsgrad: divide by the largest mean square so far.
        groups: exceptions; the first that matches a parameter holds.

    Raises:
        InputError: a beta outside [0, 1), or a negative or non-finite number.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    groups: tuple[ParamGroup, ...] = ()

    def __post_init__(self) -> None:
        name = type(self).__name__
        _check_groups(name, self.groups)
        _check(f"{name}(eps)", self.eps)
        _check(f"{name}(weight_decay)", self.weight_decay)
        _check_betas(name, self.betas)

    def state(self, updated: Mapping[str, TensorType]) -> dict[str, TensorType]:
        """The types of the state for what is updated, by name; it starts as zeros."""
        largest = ("max_exp_avg_sq",) if self.amsgrad else ()
        moments = _of_each(("exp_avg", "exp_avg_sq", *largest), updated)
        return {**moments, **dict.fromkeys(CORRECTION, TensorType(()))}


@dataclass(frozen=True, slots=True)
class AdamW(Adam):
    """``torch.optim.AdamW``: ``Adam`` with decoupled weight decay.

    Args:
        betas: as ``Adam``.
        eps: as ``Adam``.
        weight_decay: the parameter shrinks by ``lr * weight_decay`` of itself.
        amsgrad: as ``Adam``.
        groups: as ``Adam``.

    Raises:
        InputError: as ``Adam``.
    """

    weight_decay: float = 1e-2


@dataclass(frozen=True, slots=True)
class Lion(_Rateless):
    """Lion: a step of equal size for every element, along the sign of a mean of gradients.

    Source: Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2.

    Args:
        betas: share of the mean in the direction of a step, and decay of the mean.
        weight_decay: the parameter shrinks by ``lr * weight_decay`` of itself.
        groups: exceptions; the first that matches a parameter holds.

    Raises:
        InputError: a beta outside [0, 1), or a negative or non-finite number.
    """

    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    groups: tuple[ParamGroup, ...] = ()

    def __post_init__(self) -> None:
        _check_groups("Lion", self.groups)
        _check("Lion(weight_decay)", self.weight_decay)
        _check_betas("Lion", self.betas)

    def state(self, updated: Mapping[str, TensorType]) -> dict[str, TensorType]:
        """The types of the state for what is updated, by name; it starts as zeros."""
        return _of_each(("exp_avg",), updated)


@dataclass(frozen=True, slots=True)
class RMSprop(_Rateless):
    """``torch.optim.RMSprop``; the learning rate is an argument of the step.

    Args:
        alpha: decay of the mean of squared gradients.
        eps: added to its root.
        weight_decay: added to the gradient as ``weight_decay * parameter``.
        momentum: share of the last step's direction that is kept; 0 for no state of it.
        centered: divide by an estimate of the standard deviation instead.
        groups: exceptions; the first that matches a parameter holds.

    Raises:
        InputError: an alpha outside [0, 1), or a negative or non-finite number.
    """

    alpha: float = 0.99
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    centered: bool = False
    groups: tuple[ParamGroup, ...] = ()

    def __post_init__(self) -> None:
        _check_groups("RMSprop", self.groups)
        _check("RMSprop(alpha)", self.alpha, below=1.0)
        _check("RMSprop(eps)", self.eps)
        _check("RMSprop(weight_decay)", self.weight_decay)
        _check("RMSprop(momentum)", self.momentum)

    def state(self, updated: Mapping[str, TensorType]) -> dict[str, TensorType]:
        """The types of the state for what is updated, by name; it starts as zeros."""
        mean = ("grad_avg",) if self.centered else ()
        buffer = ("momentum_buffer",) if self.momentum != 0 else ()
        return _of_each(("square_avg", *mean, *buffer), updated)


@dataclass(frozen=True, slots=True)
class Adagrad(_Rateless):
    """``torch.optim.Adagrad``; the learning rate is an argument of the step.

    Args:
        lr_decay: the learning rate of step t, from 0, is divided by ``1 + lr_decay * t``.
        eps: added to the root of the sum of squared gradients.
        weight_decay: added to the gradient as ``weight_decay * parameter``.
        initial_accumulator_value: what the sums start with.
        groups: exceptions; the first that matches a parameter holds.

    Raises:
        InputError: a negative or non-finite number.
    """

    lr_decay: float = 0.0
    eps: float = 1e-10
    weight_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    groups: tuple[ParamGroup, ...] = ()

    def __post_init__(self) -> None:
        _check_groups("Adagrad", self.groups)
        for name in ("lr_decay", "eps", "weight_decay", "initial_accumulator_value"):
            _check(f"Adagrad({name})", getattr(self, name))

    def state(self, updated: Mapping[str, TensorType]) -> dict[str, TensorType]:
        """The types of the state for what is updated, by name; ``initial_value`` has its start."""
        steps = {STEPS: TensorType(())} if self.lr_decay != 0 else {}
        return {**_of_each(("sum",), updated), **steps}


Optimizer: TypeAlias = SGD | Adam | AdamW | Lion | RMSprop | Adagrad


def _of_each(kinds: Sequence[str], updated: Mapping[str, TensorType]) -> dict[str, TensorType]:
    """State of some kinds for each parameter, of its type."""
    return {state_name(kind, name): t for name, t in updated.items() for kind in kinds}


def state_name(kind: str, parameter: str) -> str:
    """The canonical name of a parameter's state of some kind."""
    return f"{PREFIX}.{kind}.{parameter}"


def sums_gradients(optimizer: Optimizer) -> bool:
    """Whether gradients may be added one by one to what a step adds their sum to."""
    return isinstance(optimizer, SGD) and optimizer.momentum != 0 and not optimizer.nesterov


def settings(optimizer: Optimizer, parameter: str) -> Settings:
    """What holds for a parameter: the first group that matches it, or the optimizer's own."""
    for group in optimizer.groups:
        if fnmatchcase(parameter, group.match):
            decay = optimizer.weight_decay if group.weight_decay is None else group.weight_decay
            return Settings(decay, group.lr_scale)
    return Settings(optimizer.weight_decay, 1.0)


def initial_value(optimizer: Optimizer, name: str) -> float:
    """What every element of a state starts with, by the state's name."""
    if isinstance(optimizer, Adagrad) and name.startswith(state_name("sum", "")):
        return optimizer.initial_accumulator_value
    return 0.0


def initial_state(optimizer: Optimizer, types: Mapping[str, TensorType]) -> dict[str, Tensor]:
    """The contents that state of these types starts with."""
    return {
        name: torch.full(t.shape, initial_value(optimizer, name), dtype=t.dtype.torch)
        for name, t in types.items()
    }


def check_groups(optimizer: Optimizer, parameters: list[str]) -> None:
    """Every group matches a parameter of the model, updated or not.

    Raises:
        InputError: one matches none.
    """
    for group in optimizer.groups:
        if not any(fnmatchcase(name, group.match) for name in parameters):
            raise _bad(
                f"ParamGroup(match={group.match!r})",
                "no parameter of that name",
                "a pattern that matches some",
                "See model.named_parameters() for the names",
            )


def check_optimizer(optimizer: object) -> None:
    """An optimizer is one of this module's.

    Raises:
        InputError: it is something else.
    """
    if isinstance(optimizer, Optimizer):
        return
    kind = optimizer if isinstance(optimizer, type) else type(optimizer)
    named = optimizer if isinstance(optimizer, str) else kind.__name__
    known = {each.__name__.lower(): each.__name__ for each in get_args(Optimizer)}
    raise InputError(
        where="compile(optimizer=...)",
        found=repr(optimizer)
        if isinstance(optimizer, str)
        else f"{kind.__module__}.{named}" + (", a class" if kind is optimizer else ""),
        needed=f"one of {', '.join(f'pe.{name}(...)' for name in known.values())}",
        remedy=f"Give pe.{known.get(named.lower(), 'SGD')}(); the learning rate is the step's",
    )


def _check_groups(optimizer: str, groups: object) -> None:
    if not isinstance(groups, tuple) or not all(isinstance(each, ParamGroup) for each in groups):
        wanted = 'Give groups=(pe.ParamGroup("*.bias", weight_decay=0.0),), for example'
        raise _bad(f"{optimizer}(groups)", repr(groups), "a tuple of pe.ParamGroup", wanted)


def _check_betas(optimizer: str, betas: tuple[float, float]) -> None:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        wanted = "Give betas=(0.9, 0.999), for example"
        raise _bad(f"{optimizer}(betas)", repr(betas), "two numbers", wanted)
    for place, beta in enumerate(betas):
        _check(f"{optimizer}(betas[{place}])", beta, below=1.0)


def _check(where: str, value: float, below: float = float("inf")) -> None:
    if not is_number(value) or not 0 <= value < below:
        limit = "" if below == float("inf") else f" and below {below:g}"
        wanted = "Give such a number, or leave it out for the default"
        raise _bad(where, repr(value), f"a number of at least 0{limit}", wanted)


def _bad(where: str, found: str, needed: str, remedy: str) -> InputError:
    return InputError(where=where, found=found, needed=needed, remedy=remedy)
