"""What a trainer is but for its contents: tables, kernels, the memory plan, and what was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from pockengine.frontend.losses import LossKind
from pockengine.modes import Modes
from pockengine.optimizer import Optimizer
from pockengine.plan.memory import Plan
from pockengine.runtime.descriptor import Descriptor
from pockengine.runtime.signature import Signature
from pockengine.scheme import Channels, Scheme
from pockengine.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A compiled trainer but for the contents of its regions.

    Args:
        target: the machine it is for.
        descriptor: its tables.
        kernels: files of its kernels in the cache, in the descriptor's order; for another target
            than the host, of object files.
        plan: where its values lie.
        shapes: what it may be called with; the example batch first.
        partial: whether a batch may have fewer samples.
        names: the model's ``state_dict()`` names -> canonical names.
        dtypes: of the model's tensors, by canonical name.
        fold: contents of the const region, by name, from the model's tensors by canonical name.
        initial: what state starts with where that is not zero, by name.
        modes: what a step does besides updating.
        scheme: what is updated, resolved.
        channels: the part of each parameter that is updated in part.
        optimizer: how.
        adapters: the scale of each layer's low-rank adapter, by the layer's name.
        loss: what its loss says about outputs and targets.
    """

    target: Target
    descriptor: Descriptor
    kernels: tuple[Path, ...]
    plan: Plan
    shapes: tuple[Signature, ...]
    partial: bool
    names: Mapping[str, str]
    dtypes: Mapping[str, torch.dtype]
    fold: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    initial: Mapping[str, float]
    modes: Modes
    scheme: Scheme
    channels: Mapping[str, Channels]
    optimizer: Optimizer
    adapters: Mapping[str, float] = field(default_factory=dict)
    loss: LossKind = field(default_factory=LossKind)

    @property
    def signature(self) -> Signature:
        """What it is called with: batches like the example."""
        return self.shapes[0]
