"""PyTorch's step, in the ways that its users write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.step_time.peers.protocol import LR, MOMENTUM, Peer, Task
from experiments.step_time.settings import CASES

Loss = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


def torch_peer(
    task: Task,
    *,
    channels_last: bool = False,
    fused: bool | None = None,
    changed: Callable[[Loss], Loss] = lambda loss: loss,
) -> Peer:
    """A step of a case.

    Args:
        task: the workload.
        channels_last: store images and their weights in that order.
        fused: of ``torch.optim.SGD``.
        changed: what becomes of the function of model, inputs and labels that gives the loss.
    """
    torch.set_num_threads(task.threads)
    case = CASES[task.case]
    model = case.model()
    stored = {**task.parameters, **task.buffers}
    model.load_state_dict({n: torch.from_numpy(v) for n, v in stored.items()}, strict=False)
    order: Any = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=order)  # type: ignore[call-overload]
    given = (torch.from_numpy(array) for array in task.inputs)
    inputs = tuple(
        each.contiguous(memory_format=order) if each.ndim == 4 else each for each in given
    )
    labels = torch.from_numpy(task.labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM, fused=fused)
    loss_of = changed(lambda model, inputs, labels: case.loss(model(*inputs), labels))

    def step() -> float:
        loss = loss_of(model, inputs, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    trained = sum(parameter.numel() for parameter in model.parameters())
    return Peer(step=step, trained=trained, version=torch.__version__)
