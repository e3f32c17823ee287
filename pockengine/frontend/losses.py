"""Losses by name; any callable ``loss(output, target)`` that gives a scalar serves as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor

from pockengine.errors import CaptureError

Loss: TypeAlias = "str | Callable[[Any, Any], Tensor]"


def _bce_with_logits(output: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, target.to(output.dtype))


LOSSES: dict[str, Callable[[Any, Any], Tensor]] = {
    "cross_entropy": F.cross_entropy,
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "bce_with_logits": _bce_with_logits,
}


def loss_function(loss: Loss) -> Callable[[Any, Any], Tensor]:
    """The callable that a loss stands for.

    Options (label smoothing, class weights, ignore_index, pos_weight) come with PyTorch's modules:
    ``torch.nn.CrossEntropyLoss(label_smoothing=0.1)``.

    Raises:
        CaptureError: a name that is not known, or something that cannot be called.
    """
    if callable(loss):
        return loss
    if loss in LOSSES:
        return LOSSES[loss]
    raise CaptureError(
        where="compile(loss=...)",
        found=f"{loss!r}",
        needed=f"one of {', '.join(LOSSES)}, or a callable loss(output, target) -> scalar",
        remedy="Give a name from the list or a callable such as torch.nn.CrossEntropyLoss()",
    )
