"""A few steps of a compiled trainer beside PyTorch eager's, for any loss and structure."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import pockengine as pe

TOLERANCE = {"rtol": 2e-4, "atol": 3e-6}
"""Of losses, outputs and parameters in float32 after a few steps: rounding grows with each."""


def call(model: nn.Module, inputs: Any, more: Mapping[str, Any] | None = None) -> Any:
    """The model's output."""
    if isinstance(inputs, Mapping):
        return model(**inputs, **(more or {}))
    return model(*(inputs if isinstance(inputs, tuple) else (inputs,)), **(more or {}))


def check_training(
    model: nn.Module,
    batches: Sequence[tuple[Any, Any]],
    loss: Any,
    reference: Callable[[nn.Module, Any, Any], Tensor],
    *,
    lr: float = 0.1,
    **options: Any,
) -> pe.Trainer:
    """Compile, step through the batches, and compare losses and parameters with eager SGD.

    Args:
        model: stays as it is.
        batches: of the shape that it is compiled for.
        loss: as ``pe.compile``.
        reference: (model, inputs, targets) -> loss, in PyTorch.
        lr: the learning rate.
        options: for ``pe.compile``.

    Returns:
        The trainer, after its steps.
    """
    eager = copy.deepcopy(model)
    options = {"optimizer": pe.SGD(), "threads": 1, **options}
    trainer = pe.compile(model, batches[0], loss=loss, **options)
    compare_steps(trainer, eager, batches, reference, lr=lr)
    return trainer


def compare_steps(
    trainer: pe.Trainer,
    eager: nn.Module,
    batches: Sequence[tuple[Any, Any]],
    reference: Callable[[nn.Module, Any, Any], Tensor],
    *,
    lr: float = 0.1,
) -> None:
    """Step a trainer and a model with SGD through batches, and compare."""
    steps = torch.optim.SGD(eager.parameters(), lr=lr)
    for inputs, targets in batches:
        steps.zero_grad()
        wanted = reference(eager, inputs, targets)
        wanted.backward()  # type: ignore[no-untyped-call]
        steps.step()
        found = trainer.step(inputs, targets, lr=lr)
        torch.testing.assert_close(found, float(wanted.detach()), **TOLERANCE)
    state = trainer.state_dict()
    for name, tensor in eager.state_dict().items():
        torch.testing.assert_close(state[name], tensor, **TOLERANCE)
