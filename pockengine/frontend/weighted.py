"""Losses that weigh each sample, so that a smaller batch can be padded exactly."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pockengine.errors import CaptureError
from pockengine.frontend.capture import Batch, canonical_batch
from pockengine.frontend.losses import Loss, check_same_shape, main_output, only_tensor
from pockengine.frontend.structure import first_extents, flatten

KNOWN: dict[str, Callable[[], nn.Module]] = {
    "cross_entropy": nn.CrossEntropyLoss,
    "token_cross_entropy": nn.CrossEntropyLoss,
    "mse": nn.MSELoss,
    "l1": nn.L1Loss,
    "smooth_l1": nn.SmoothL1Loss,
    "bce_with_logits": nn.BCEWithLogitsLoss,
}
ELEMENTWISE = (
    *(nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCELoss, nn.BCEWithLogitsLoss),
    *(nn.KLDivLoss, nn.PoissonNLLLoss, nn.SoftMarginLoss, nn.MultiLabelSoftMarginLoss),
)

MODULES = (nn.CrossEntropyLoss, nn.NLLLoss, *ELEMENTWISE)
"""Losses that are a sum or a mean of terms."""


def weighted_batch(batch: Batch) -> Batch:
    """An example batch whose targets hold a weight for each sample besides.

    Raises:
        CaptureError: the batch is no pair, or its inputs have no first axis in common.
    """
    inputs, targets = canonical_batch(batch)
    extents = first_extents(flatten(inputs)[0])
    if len(extents) != 1 or extents == {0}:
        raise CaptureError(
            where="compile(partial=True)",
            found=f"inputs with {sorted(extents)} samples",
            needed="inputs whose first axis is the batch",
            remedy="Leave partial out, and declare smaller batches with shapes",
        )
    return inputs, {"targets": targets, "weight": torch.ones(extents.pop())}


def weighted_loss(loss: Loss) -> Callable[[Any, Any], Tensor]:
    """The loss of ``weighted_batch``: its mean is that over the samples of weight 1 alone.

    Raises:
        CaptureError: a loss that mixes samples in a way of its own.
    """
    if isinstance(loss, str) and loss in KNOWN:
        named = _of_module(KNOWN[loss](), tokens=loss == "token_cross_entropy")
        return _compared(named) if loss in ("mse", "l1", "smooth_l1") else named
    if isinstance(loss, MODULES):
        return _of_module(loss, tokens=False)
    if loss == "causal_lm":
        tokens = _of_module(nn.CrossEntropyLoss(), tokens=True)
        return lambda output, told: tokens(
            main_output(output)[:, :-1], {**told, "targets": only_tensor(told["targets"])[:, 1:]}
        )
    if callable(loss) and not isinstance(loss, nn.Module) and _takes_three(loss):
        given: Callable[..., Tensor] = loss
        return lambda output, told: given(output, told["targets"], told["weight"])
    raise CaptureError(
        where="compile(partial=True)",
        found=f"the loss {getattr(loss, '__name__', None) or repr(loss)}",
        needed=f"one of {', '.join(KNOWN)}, causal_lm, a loss of torch.nn, "
        "or a callable loss(output, targets, weight) with a weight for each sample",
        remedy="Let the loss take weights, or declare smaller batches with shapes",
    )


def _compared(loss: Callable[[Any, Any], Tensor]) -> Callable[[Any, Any], Tensor]:
    """A loss that compares element with element only."""

    def call(output: Any, told: dict[str, Any]) -> Tensor:
        check_same_shape(main_output(output), only_tensor(told["targets"]))
        return loss(output, told)

    return call


def check_independent(model: nn.Module, where: str, instead: str) -> None:
    """Samples do not see each other.

    Args:
        model: the model.
        where: the argument that needs it.
        instead: what to do where statistics of a batch have to stay.

    Raises:
        CaptureError: BatchNorm uses the batch's statistics.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training:  # noqa: SLF001
            raise CaptureError(
                where=where,
                found=f"{name} normalizes by the statistics of the batch",
                needed="samples that do not see each other",
                remedy=f"Call model.eval(), or {instead}",
            )


def _takes_three(loss: Callable[..., Any]) -> bool:
    try:
        inspect.signature(loss).bind(None, None, None)
    except (TypeError, ValueError):
        return False
    return True


def _of_module(module: nn.Module, *, tokens: bool) -> Callable[[Any, Any], Tensor]:
    """A loss module of PyTorch by its terms, each with its sample's weight."""
    reduction = str(module.reduction)
    terms = terms_of(module)

    def call(output: Any, told: dict[str, Any]) -> Tensor:
        scores, target = main_output(output), only_tensor(told["targets"])
        each: Tensor = terms(scores.movedim(-1, 1) if tokens else scores, target)
        weight = told["weight"].reshape(-1, *[1] * (each.dim() - 1))
        total: Tensor = (each * weight).sum()
        if reduction == "sum":
            return total
        if reduction == "batchmean":
            return total.div(weight.sum())
        counts = counted(module, scores.dtype, target)
        return total.div((weight * (torch.ones_like(each) if counts is None else counts)).sum())

    return call


def terms_of(module: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss module of PyTorch without its sum or mean."""
    terms = copy.copy(module)
    terms.reduction = "none"  # type: ignore[assignment]

    def call(scores: Tensor, target: Tensor) -> Tensor:
        if isinstance(module, nn.BCEWithLogitsLoss):
            target = target.to(scores.dtype)
        each: Tensor = terms(scores, target)
        return each

    return call


def counted(module: nn.Module, dtype: torch.dtype, target: Tensor) -> Tensor | None:
    """What each term counts in a mean: its class's weight, nothing where ignored; None for 1."""
    by_class = isinstance(module, (nn.CrossEntropyLoss, nn.NLLLoss))
    if not by_class or target.is_floating_point():
        return None
    ignore = int(module.ignore_index)  # type: ignore[arg-type]
    kept = target != ignore
    if module.weight is None:
        return kept.to(dtype)
    assert isinstance(module.weight, Tensor)
    hit = target[..., None] == torch.arange(len(module.weight))
    return torch.where(hit, module.weight, 0.0).sum(-1) * kept
