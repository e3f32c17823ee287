"""A compiled trainer against eager PyTorch, step by step: shared by the tests and `make verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import sqrt

import torch
from torch import Tensor, nn

import pockengine as pe
from pockengine.compile import Prepared, prepare
from pockengine.frontend.losses import Loss
from pockengine.optimizer import SGD, AdamW, Optimizer
from pockengine.pipeline import Observer
from pockengine.scheme import Rule, Scheme, channel_axes
from tests.eager import (
    EAGER_FACTOR,
    LOSS_TOLERANCE,
    PARAMETER_TOLERANCE,
    Batches,
    EagerRun,
    outside_unchanged,
    train_eagerly,
)

SGD_MOMENTUM = SGD(momentum=0.9, weight_decay=1e-4)
ADAMW = AdamW(weight_decay=1e-2)

_NOISE = 1e-5  # a gradient's rounding in float32, relative to the largest gradient of the model
_FRACTIONS = (0.25, 1.0, None, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One line of the matrix: everything that a run depends on.

    Args:
        model: in the mode it is trained in.
        batches: ``(inputs, targets)`` of each step.
        scheme: what is updated.
        optimizer: how.
        lr: the learning rate, the same for all steps.
        loss: by name, or a function.
        micro_batches: parts of a batch.
    """

    model: nn.Module
    batches: Batches
    scheme: Scheme | Rule
    optimizer: Optimizer
    lr: float
    loss: Loss = "cross_entropy"
    micro_batches: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledRun:
    """What a run of the compiled trainer left: losses, and the model's tensors by name."""

    losses: list[float]
    state: Mapping[str, Tensor]

    def same_bits(self, other: CompiledRun) -> bool:
        """Whether two runs agree in every bit."""
        return self.losses == other.losses and all(
            torch.equal(tensor, other.state[name]) for name, tensor in self.state.items()
        )


@dataclass(slots=True, kw_only=True)
class Judgement:
    """How far a compiled run lies from PyTorch's.

    Args:
        loss_error: the largest relative difference to eager float32.
        eager_loss_error: that of eager float32 to float64, for comparison.
        parameter_error: the largest ||p - p64|| in units of what is allowed; at most 1 is right.
        worst: the parameter that it belongs to.
        without_gradient: parameters whose true gradient is zero, and how far each moved, in units
            of the bound on what rounding can do.
        failures: everything that is wrong, in words.
    """

    loss_error: float = 0.0
    eager_loss_error: float = 0.0
    parameter_error: float = 0.0
    worst: str = ""
    without_gradient: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def mixed_scheme(model: nn.Module) -> Scheme:
    """A quarter, all, none and half of the input channels in turn, and every second bias.

    Of the second half of the model, so that the backward pass ends in its middle.
    """
    weights = [name for name, p in model.named_parameters() if p.dim() in (2, 4)]
    fractions = {
        name: _FRACTIONS[place % len(_FRACTIONS)]
        for place, name in enumerate(weights[len(weights) // 2 :])
    }
    whole = {n for n in fractions if id(model.get_parameter(n)) not in channel_axes(model)}
    fractions |= {n: 1.0 for n in whole if fractions[n] is not None}
    biases = [name for name, p in model.named_parameters() if p.dim() == 1]
    some = dict.fromkeys(biases[len(biases) // 2 :: 2], 1.0)
    return Scheme({**{n: r for n, r in fractions.items() if r is not None}, **some})


def compiled_trainer(case: Case, threads: int = 1) -> pe.Trainer:
    """A fresh trainer of a case."""
    return pe.compile(
        case.model,
        case.batches[0],
        loss=case.loss,
        optimizer=case.optimizer,
        scheme=case.scheme,
        micro_batches=case.micro_batches,
        threads=threads,
    )


def prepared(case: Case, observe: Observer | None = None) -> Prepared:
    """A case ahead of code generation."""
    return prepare(
        case.model,
        case.batches[0],
        loss=case.loss,
        optimizer=case.optimizer,
        scheme=case.scheme,
        observe=observe,
    )


def train(case: Case, threads: int = 1) -> CompiledRun:
    """Compile a case and take a step with each batch."""
    with compiled_trainer(case, threads) as trainer:
        losses = [trainer.step(x, y, lr=case.lr) for x, y in case.batches]
        return CompiledRun(losses=losses, state=trainer.state_dict())


def train_in_pytorch(case: Case, dtype: torch.dtype = torch.float32) -> EagerRun:
    """The same run in eager PyTorch."""
    return train_eagerly(
        case.model,
        case.batches,
        loss=case.loss,
        optimizer=case.optimizer,
        lr=case.lr,
        scheme=case.scheme,
        dtype=dtype,
    )


def judge(case: Case, run: CompiledRun, single: EagerRun, double: EagerRun) -> Judgement:
    """Compare a compiled run with eager ones in float32 and float64.

    Args:
        case: what was run.
        run: the compiled trainer's.
        single: eager PyTorch's in float32.
        double: in float64.
    """
    found = Judgement()
    pairs = zip(single.losses, double.losses, strict=True)
    found.eager_loss_error = max(abs(a - b) / abs(b) for a, b in pairs)
    for step, (mine, eager) in enumerate(zip(run.losses, single.losses, strict=True)):
        error = abs(mine - eager) / abs(eager)
        found.loss_error = max(found.loss_error, error)
        if not error <= LOSS_TOLERANCE:
            found.failures.append(f"loss of step {step}: {mine!r}, not {eager!r}")
    found.failures += _touched(case, run)
    quiet = set(double.without_gradient)
    for name in double.gradient_norms:
        if name in quiet:
            moved = _moved(case, name, run, double)
            found.without_gradient[name] = moved
            if not moved <= 1:
                found.failures.append(f"{name} has no gradient, yet moved {moved:.3g} of the bound")
            continue
        error = _error(run.state[name], single.parameters[name], double.parameters[name])
        if error > found.parameter_error:
            found.parameter_error, found.worst = error, name
        if not error <= 1:
            found.failures.append(f"{name} is off by {error:.3g} of what is allowed")
    found.failures += _buffers(case, run, single, double)
    return found


def _buffers(case: Case, run: CompiledRun, single: EagerRun, double: EagerRun) -> Iterator[str]:
    """Which buffers are not what the forward passes made of them."""
    for name, before in case.model.named_buffers():
        if name not in run.state:
            continue  # not persistent
        mine, wanted = run.state[name], single.buffers[name]
        exact = torch.equal(before, wanted) or not wanted.is_floating_point()
        if exact and not torch.equal(mine, wanted):
            yield f"buffer {name} is {mine}, not {wanted}"
        if not exact and not (error := _error(mine, wanted, double.buffers[name])) <= 1:
            yield f"buffer {name} is off by {error:.3g} of what is allowed"


def _error(mine: Tensor, single: Tensor, double: Tensor) -> float:
    """||p - p64|| in units of the larger of the two tolerances."""
    allowed = max(
        PARAMETER_TOLERANCE * double.norm().item(),
        EAGER_FACTOR * (single.double() - double).norm().item(),
    )
    error = (mine.double() - double).norm().item()
    return error / allowed if error else 0.0


def _moved(case: Case, name: str, run: CompiledRun, double: EagerRun) -> float:
    """How far a parameter without gradient moved, in units of what rounding can do.

    An AdamW step moves an element by at most lr max(1, (1 - beta1) / sqrt(1 - beta2)) whatever the
    gradient (Kingma & Ba, section 2.1); an SGD step follows the gradient's rounding.
    """
    before = case.model.get_parameter(name).detach()
    moved = (run.state[name] - before).abs().max().item()
    decay = case.optimizer.weight_decay * before.abs().max().item()
    if isinstance(case.optimizer, AdamW):
        beta1, beta2 = case.optimizer.betas
        step = max(1.0, (1 - beta1) / sqrt(1 - beta2)) + decay
    else:
        noise = _NOISE * max(double.gradient_norms.values())
        step = (noise + decay) / (1 - case.optimizer.momentum)
    return moved / (case.lr * step * len(case.batches))


def _touched(case: Case, run: CompiledRun) -> Iterator[str]:
    """What changed although the scheme does not update it."""
    resolved = case.scheme.resolve(case.model)
    channels = resolved.channels(case.model)
    updated = {case.model.get_parameter(name).data_ptr() for name in resolved}  # by any name
    for name, before in case.model.named_parameters():
        after = run.state[name]
        if name in channels:
            if not outside_unchanged(before, after, channels[name]):
                yield f"{name} changed outside of its slice"
        elif before.data_ptr() not in updated and not torch.equal(before, after):
            yield f"{name} is frozen, yet changed"
