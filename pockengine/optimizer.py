"""Optimizers, as data: what ``append_optimizer`` writes into the graph, and the state it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite
from typing import TypeAlias

import torch
from torch import Tensor

from pockengine.errors import InputError
from pockengine.ir.types import TensorType

PREFIX = "optimizer"
CORRECTION = (f"{PREFIX}.correction1", f"{PREFIX}.correction2")


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
        if not self.match:
            raise _bad("ParamGroup(match)", self.match, "a pattern of names", 'Such as "*.bias"')
        _check("ParamGroup(lr_scale)", self.lr_scale)
        if self.weight_decay is not None:
            _check("ParamGroup(weight_decay)", self.weight_decay)


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for one parameter."""

    weight_decay: float
    lr_scale: float


@dataclass(frozen=True, slots=True)
class SGD:
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
        _check("SGD(momentum)", self.momentum)
        _check("SGD(weight_decay)", self.weight_decay)
        if self.nesterov and self.momentum == 0:
            raise _bad("SGD(nesterov)", True, "a momentum above 0", "Set momentum=0.9")

    def state(self, updated: Mapping[str, TensorType]) -> dict[str, TensorType]:
        """The types of the state for what is updated, by name; it starts as zeros."""
        if self.momentum == 0:
            return {}
        return {state_name("momentum_buffer", name): kind for name, kind in updated.items()}


@dataclass(frozen=True, slots=True)
class AdamW:
    """``torch.optim.AdamW``; the learning rate is an argument of the step.

    The bias corrections 1 - beta^t are state: c <- c + (1 - beta) (1 - c) from 0, which never
    cancels.

    Args:
        betas: decay of the mean of gradients and of their squares.
        eps: added to the root of the mean square.
        weight_decay: decoupled: the parameter shrinks by ``lr * weight_decay`` of itself.
        groups: exceptions; the first that matches a parameter holds.

    Raises:
        InputError: a beta outside [0, 1), or a negative or non-finite number.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-2
    groups: tuple[ParamGroup, ...] = ()

    def __post_init__(self) -> None:
        _check("AdamW(eps)", self.eps)
        _check("AdamW(weight_decay)", self.weight_decay)
        for place, beta in enumerate(self.betas):
            _check(f"AdamW(betas[{place}])", beta, below=1.0)

    def state(self, updated: Mapping[str, TensorType]) -> dict[str, TensorType]:
        """The types of the state for what is updated, by name; it starts as zeros."""
        moments = {
            state_name(kind, name): found
            for name, found in updated.items()
            for kind in ("exp_avg", "exp_avg_sq")
        }
        return {**moments, **dict.fromkeys(CORRECTION, TensorType(()))}


Optimizer: TypeAlias = SGD | AdamW


def state_name(kind: str, parameter: str) -> str:
    """The canonical name of a parameter's state of some kind."""
    return f"{PREFIX}.{kind}.{parameter}"


def settings(optimizer: Optimizer, parameter: str) -> Settings:
    """What holds for a parameter: the first group that matches it, or the optimizer's own."""
    for group in optimizer.groups:
        if fnmatchcase(parameter, group.match):
            decay = optimizer.weight_decay if group.weight_decay is None else group.weight_decay
            return Settings(decay, group.lr_scale)
    return Settings(optimizer.weight_decay, 1.0)


def initial_state(types: Mapping[str, TensorType]) -> dict[str, Tensor]:
    """The contents that state of these types starts with: zeros."""
    return {name: torch.zeros(t.shape, dtype=t.dtype.torch) for name, t in types.items()}


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


def _check(where: str, value: float, below: float = float("inf")) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not isfinite(value) or not 0 <= value < below:
        limit = "" if below == float("inf") else f" and below {below:g}"
        raise _bad(where, value, f"a number of at least 0{limit}", "See PyTorch's documentation")


def _bad(where: str, found: object, needed: str, remedy: str) -> InputError:
    shown = found if isinstance(found, str) and found else repr(found)
    return InputError(where=where, found=str(shown), needed=needed, remedy=remedy)
