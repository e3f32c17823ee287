"""The same fine-tuning in eager PyTorch, and what it keeps in memory."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

import pockengine as pe


class Eager:
    """Fine-tunes a copy of a model as PyTorch does.

    Args:
        model: copied, mode included.
        trained: names of the parameters to update.
        optimizer: what to do as PyTorch's own.
    """

    def __init__(
        self, model: nn.Module, trained: Collection[str], optimizer: pe.SGD | pe.AdamW
    ) -> None:
        self.model = copy.deepcopy(model)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in trained)
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer: torch.optim.Optimizer
        if isinstance(optimizer, pe.SGD):
            self._optimizer = torch.optim.SGD(self._trained, momentum=optimizer.momentum)
        else:
            self._optimizer = torch.optim.AdamW(self._trained, weight_decay=optimizer.weight_decay)

    def step(self, inputs: tuple[Tensor, ...], labels: Tensor, *, lr: float) -> float:
        """One step; returns the loss ahead of the update."""
        self._optimizer.param_groups[0]["lr"] = lr
        loss = self._loss(inputs, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._optimizer.zero_grad()
        return float(loss.detach())

    def saved_bytes(self, inputs: tuple[Tensor, ...], labels: Tensor) -> int:
        """Bytes that a step's forward pass keeps for its backward pass.

        Each storage counts once; the model's own tensors and the batch do not count.
        """
        owned = [*self.model.parameters(), *self.model.buffers(), *inputs, labels]
        known = {tensor.untyped_storage().data_ptr() for tensor in owned}
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self._loss(inputs, labels)
        return sum(t.untyped_storage().nbytes() for p, t in saved.items() if p not in known)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters and buffers."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum(tensor.nbytes for tensor in tensors)

    @property
    def gradient_bytes(self) -> int:
        """Bytes of the gradients, all of which exist at the end of the backward pass."""
        return sum(tensor.nbytes for tensor in self._trained)

    @property
    def state_bytes(self) -> int:
        """Bytes of the optimizer's state, after a step."""
        states = self._optimizer.state.values()
        return sum(t.nbytes for state in states for t in state.values() if isinstance(t, Tensor))

    def _loss(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return F.cross_entropy(self.model(*inputs), labels)
