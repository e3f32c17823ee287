"""PyTorch's own step, eager, to be timed against."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import fields

import torch
from torch import nn

from pockengine.errors import InputError
from pockengine.frontend.capture import canonical_batch
from pockengine.frontend.losses import loss_function
from pockengine.optimizer import Optimizer
from pockengine.report.workloads import Workload
from pockengine.scheme import Scheme


def eager_step(workload: Workload, scheme: Scheme, threads: int) -> Callable[[], None]:
    """A function that does one step of a copy of the model.

    What a scheme updates in part is updated whole: PyTorch can freeze tensors, not channels.

    Args:
        workload: what to fine-tune.
        scheme: what is updated, resolved.
        threads: how many PyTorch may use, from now on in the whole process.
    """
    torch.set_num_threads(threads)
    model = copy.deepcopy(workload.model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in scheme)
    optimizer = _optimizer(workload.optimizer, model)
    loss = loss_function(workload.loss)
    inputs, targets = canonical_batch(workload.batch)

    def step() -> None:
        optimizer.zero_grad()
        output = model(**inputs) if isinstance(inputs, dict) else model(*inputs)
        loss(output, targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _optimizer(chosen: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """The same optimizer in PyTorch, parameter groups aside, at a learning rate of 0.

    Raises:
        InputError: PyTorch has none of that name.
    """
    updated = [parameter for parameter in model.parameters() if parameter.requires_grad]
    make = getattr(torch.optim, type(chosen).__name__, None)
    if make is None:
        raise InputError(
            where="eager baseline",
            found=f"PyTorch has no {type(chosen).__name__}",
            needed="an optimizer of torch.optim",
            remedy="Measure with SGD or AdamW",
        )
    options = {f.name: getattr(chosen, f.name) for f in fields(chosen) if f.name != "groups"}
    found: torch.optim.Optimizer = make(updated, lr=0.0, **options)
    return found
