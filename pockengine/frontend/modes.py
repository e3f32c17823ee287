"""A module's mode while it is traced: evaluation apart from training, and what tracing forbids."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def is_training(model: nn.Module) -> bool:
    """Whether any part of a model is in train mode."""
    return any(module.training for module in model.modules())


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All of a model is in eval mode and nothing of it trains; as before outside."""
    modes = {module: module.training for module in model.modules()}
    trained = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter in trained:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def assignments_written(model: nn.Module) -> Iterator[None]:
    """Buffers that a forward pass inside assigns anew (``self.mean = ...``) are written in place.

    A tracer sees what is written into a tensor, not that an attribute became another one. A buffer
    that takes another shape or dtype is a cache, and is left to the forward pass that makes it.
    """
    before = [
        (module._buffers, name, tensor)  # noqa: SLF001 - an attribute could be a parametrization
        for module in model.modules()
        for name, tensor in module._buffers.items()  # noqa: SLF001
        if tensor is not None
    ]
    yield
    for owned, name, tensor in before:
        now = owned.get(name)
        if now is None or now is tensor:
            continue
        if (now.shape, now.dtype) == (tensor.shape, tensor.dtype):
            tensor.copy_(now.detach())
            owned[name] = tensor


@contextlib.contextmanager
def traceable_averages(model: nn.Module) -> Iterator[None]:
    """Batch normalization with cumulative averages (``momentum=None``) counts in the graph.

    PyTorch's reads the counter as a Python number, which cannot be traced.
    """
    changed = [m for m in model.modules() if isinstance(m, _BatchNorm) and _is_cumulative(m)]
    for module in changed:
        module.forward = partial(_cumulative, module)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _is_cumulative(module: _BatchNorm) -> bool:
    return (
        module.training
        and module.momentum is None
        and module.track_running_stats
        and "forward" not in vars(module)
    )


def _cumulative(module: _BatchNorm, x: Tensor) -> Tensor:
    """The forward pass of a batch normalization whose running statistics are plain averages."""
    module._check_input_dim(x)  # type: ignore[no-untyped-call]  # noqa: SLF001 - as PyTorch does
    assert module.num_batches_tracked is not None
    assert module.running_mean is not None
    assert module.running_var is not None
    module.num_batches_tracked.add_(1)
    share = 1.0 / module.num_batches_tracked
    axes = [axis for axis in range(x.dim()) if axis != 1]
    with torch.no_grad():
        var, mean = torch.var_mean(x, axes)
        module.running_mean.add_((mean - module.running_mean) * share)
        module.running_var.add_((var - module.running_var) * share)
    return F.batch_norm(x, None, None, module.weight, module.bias, training=True, eps=module.eps)
