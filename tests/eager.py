"""Plain PyTorch training by a scheme, in float32 or float64: what a compiled trainer is held to."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pockengine.frontend.capture import canonical_batch
from pockengine.frontend.losses import loss_function
from pockengine.optimizer import Optimizer
from pockengine.scheme import Channels, Rule, Scheme

Batches = Sequence[tuple[Any, Any]]

LOSS_TOLERANCE = 1e-4
"""Relative, per step, between two runs in float32: rounding grows with every update."""
PARAMETER_TOLERANCE = 1e-4
"""Of a tensor's norm, against the run in float64."""
EAGER_FACTOR = 4.0
"""Where eager float32 itself strays further: so many times as far as it does. Both are samples of
one rounding noise, and AdamW divides small gradients by themselves."""
ZERO_GRADIENT = 1e-12
"""A true gradient at most this far from 0, relative to the largest of the model: in exact
arithmetic it is 0, such as that of a key's bias, which softmax cancels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EagerRun:
    """What a run of eager PyTorch left.

    Args:
        losses: ahead of each update.
        parameters: afterwards, by canonical name.
        buffers: afterwards, by name.
        states: the optimizer's, as ``{"momentum_buffer" | "exp_avg" | ...: {name: tensor}}``.
        gradient_norms: the largest over the steps, of what the scheme updates.
    """

    losses: list[float]
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    states: Mapping[str, Mapping[str, Tensor]]
    gradient_norms: Mapping[str, float]

    @property
    def without_gradient(self) -> list[str]:
        """Updated parameters whose gradient is zero but for rounding; meaningful in float64."""
        largest = max(self.gradient_norms.values())
        return [n for n, norm in self.gradient_norms.items() if norm <= ZERO_GRADIENT * largest]


def train_eagerly(
    model: nn.Module,
    batches: Batches,
    *,
    loss: Any,
    optimizer: Optimizer,
    lr: float,
    scheme: Scheme | Rule,
    dtype: torch.dtype = torch.float32,
) -> EagerRun:
    """Train a copy of a model with PyTorch's own optimizer, a step for each batch.

    A parameter that is updated in part is updated as a whole, and then what lies outside the slice
    is put back: optimizers work element by element, so this restricts weight decay and moments too.

    Args:
        model: stays as it is; its mode counts.
        batches: ``(inputs, targets)`` of each step.
        loss: as ``pockengine.compile``.
        optimizer: as ``pockengine.compile``; without groups.
        lr: the learning rate.
        scheme: what to update.
        dtype: of all floating-point values.
    """
    resolved = scheme.resolve(model)
    channels = resolved.channels(model)
    mine = copy.deepcopy(model).to(dtype)
    for name, parameter in mine.named_parameters():
        parameter.requires_grad_(name in resolved)
    updated = {name: mine.get_parameter(name) for name in resolved}
    outside = {name: _outside(updated[name], part).clone() for name, part in channels.items()}
    steps = torch_optimizer(optimizer, list(updated.values()), lr)
    losses: list[float] = []
    norms = dict.fromkeys(updated, 0.0)
    for batch in batches:
        losses.append(_backward(mine, batch, loss, dtype))
        for name, parameter in updated.items():
            if parameter.grad is not None:
                norms[name] = max(norms[name], parameter.grad.norm().item())
        steps.step()
        steps.zero_grad()
        for name, part in channels.items():
            _outside(updated[name], part).copy_(outside[name])
    return EagerRun(
        losses=losses,
        parameters={name: p.detach() for name, p in mine.named_parameters()},
        buffers=dict(mine.named_buffers()),
        states=_states(steps, updated, channels),
        gradient_norms=norms,
    )


def torch_optimizer(
    optimizer: Optimizer, parameters: list[nn.Parameter], lr: float
) -> torch.optim.Optimizer:
    """PyTorch's optimizer of the same name and settings."""
    options = {f.name: getattr(optimizer, f.name) for f in fields(optimizer) if f.name != "groups"}
    made: torch.optim.Optimizer = getattr(torch.optim, type(optimizer).__name__)(
        parameters, lr=lr, **options
    )
    return made


def as_dtype(batch: Any, dtype: torch.dtype) -> tuple[Any, Any]:
    """A batch with its floating-point tensors in another dtype, inputs as arguments."""

    def cast(leaf: Tensor) -> Tensor:
        return leaf.to(dtype) if leaf.is_floating_point() else leaf

    inputs, targets = pytree.tree_map(cast, canonical_batch(batch))
    return inputs, targets


def call(model: nn.Module, inputs: Any) -> Any:
    """The model's output for inputs as ``as_dtype`` gives them."""
    return model(**inputs) if isinstance(inputs, dict) else model(*inputs)


def _backward(model: nn.Module, batch: Any, loss: Any, dtype: torch.dtype) -> float:
    inputs, targets = as_dtype(batch, dtype)
    value = loss_function(loss)(call(model, inputs), targets)
    value.backward()  # type: ignore[no-untyped-call]
    return float(value.detach())


def inside(tensor: Tensor, part: Channels) -> Tensor:
    """A view of the channels that a scheme updates."""
    return tensor.detach().narrow(part.axis, 0, part.count)


def _outside(tensor: Tensor, part: Channels) -> Tensor:
    """A view of the channels that it does not."""
    return tensor.detach().narrow(part.axis, part.count, tensor.shape[part.axis] - part.count)


def _states(
    steps: torch.optim.Optimizer,
    updated: Mapping[str, nn.Parameter],
    channels: Mapping[str, Channels],
) -> dict[str, dict[str, Tensor]]:
    """The optimizer's tensors of what is updated, cut to the slices."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, parameter in updated.items():
        for kind, tensor in steps.state[parameter].items():
            if isinstance(tensor, Tensor) and tensor.shape == parameter.shape and kind != "step":
                kept = inside(tensor, channels[name]) if name in channels else tensor.detach()
                found.setdefault(kind, {})[name] = kept
    return found


def outside_unchanged(before: Tensor, after: Tensor, part: Channels) -> bool:
    """Whether two tensors have the same bits outside a slice."""
    return torch.equal(_outside(before, part), _outside(after, part))
