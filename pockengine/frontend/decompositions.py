"""What a capture traces in terms of other ops: PyTorch's decompositions, and those it lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._decomp import _core_aten_decompositions_post_autograd, get_decompositions
from torch._decomp.decompositions import native_group_norm_backward

from pockengine.frontend.grouped import grouped_decompositions

_WHOLE = (  # ops the vocabulary holds whole, or says better than their decomposition does
    torch.ops.aten.native_batch_norm_backward,
    torch.ops.aten.embedding_dense_backward,
    torch.ops.aten.select_backward,
    torch.ops.aten.slice_backward,
    torch.ops.aten.roll,
)
_ALSO = (
    torch.ops.aten.native_layer_norm,
    torch.ops.aten.native_group_norm,
    torch.ops.aten._softmax,  # noqa: SLF001
    torch.ops.aten._log_softmax,  # noqa: SLF001
    torch.ops.aten.gelu,
    torch.ops.aten.addmv,
    torch.ops.aten.elu,
    torch.ops.aten.elu_backward,
    torch.ops.aten.leaky_relu,
    torch.ops.aten.leaky_relu_backward,
    torch.ops.aten.linalg_vector_norm,
)

_MEANS = (  # gradients whose decompositions divide by the count of elements as they are traced
    torch.ops.aten.mse_loss_backward.default,
    torch.ops.aten.smooth_l1_loss_backward.default,
    torch.ops.aten.huber_loss_backward.default,
)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """Functions that say an op by others; composite ops need none, autograd has cut them."""
    usual = {**_core_aten_decompositions_post_autograd(), **get_decompositions(_ALSO)}
    means = {op: _of_something(usual[op]) for op in _MEANS}
    table = {**usual, **means, **grouped_decompositions(), **_OURS}
    whole = {getattr(packet, name) for packet in _WHOLE for name in packet.overloads()}  # type: ignore[no-untyped-call]
    return {op: rule for op, rule in table.items() if op not in whole}


def _of_something(rule: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The gradient of a loss by its first operand, also where that has no elements."""

    def gradient(incoming: Tensor, x: Tensor, *more: Any) -> Tensor:
        return rule(incoming, x, *more) if x.numel() else torch.zeros_like(x)

    return gradient


def _group_norm_backward(
    incoming: Tensor, x: Tensor, *more: Any
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients by operand, weight and bias, also where the operand has no elements.

    The last argument says which are wanted.
    """
    *others, wanted = more
    rule = native_group_norm_backward
    if x.numel() or not wanted[0]:
        return rule(incoming, x, *others, wanted)  # type: ignore[no-any-return]
    _, weight, bias = rule(incoming, x, *others, [False, *wanted[1:]])
    return torch.zeros_like(x), weight, bias


def _weight_norm_backward(
    gradient: Tensor, direction: Tensor, length: Tensor, norms: Tensor, axis: int
) -> tuple[Tensor, Tensor]:
    """Gradients of ``length * direction / norms`` by direction and length, norms along an axis."""
    others = [a for a in range(direction.dim()) if a != axis % direction.dim()]
    along = (gradient * direction).sum(others, keepdim=True) / norms
    return length / norms * (gradient - direction * (along / norms)), along


_OURS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.native_group_norm_backward.default: _group_norm_backward,
    torch.ops.aten._weight_norm_interface_backward.default: _weight_norm_backward,  # noqa: SLF001
}
