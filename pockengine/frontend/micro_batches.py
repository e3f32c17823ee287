"""A batch as equal parts that run one after the other, and losses whose parts add up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pockengine.errors import CaptureError, InputError
from pockengine.frontend.capture import Batch, canonical_batch
from pockengine.frontend.losses import Loss, check_same_shape, main_output, only_tensor
from pockengine.frontend.structure import first_extents, flatten
from pockengine.frontend.weighted import KNOWN, MODULES, counted, terms_of

PART, WHOLE = "part", "whole"  # of the targets; a dict's order is theirs
_WHERE = "compile(micro_batches=...)"
_FUNCTIONS: dict[Any, Callable[[], nn.Module]] = {
    F.cross_entropy: nn.CrossEntropyLoss,
    F.nll_loss: nn.NLLLoss,
    F.mse_loss: nn.MSELoss,
    F.l1_loss: nn.L1Loss,
    F.smooth_l1_loss: nn.SmoothL1Loss,
    F.huber_loss: nn.HuberLoss,
    F.binary_cross_entropy: nn.BCELoss,
    F.binary_cross_entropy_with_logits: nn.BCEWithLogitsLoss,
}


def micro_batch(batch: Batch, count: int) -> Batch:
    """The first of so many parts of an example batch, whose targets hold the whole ones besides.

    Raises:
        InputError: a tensor without a first axis that can be parted, or of other samples.
    """
    inputs, targets = canonical_batch(batch)
    leaves = flatten((inputs, targets))[0]
    extents = first_extents(leaves)
    samples = extents.pop() if len(extents) == 1 else 0
    if not samples or samples % count:
        told = ", ".join(str(tuple(tensor.shape)) for tensor in leaves)
        raise InputError(
            where=_WHERE,
            found=f"{count} parts of inputs and targets of {told}",
            needed="tensors with the samples on their first axis, as many as the parts divide",
            remedy="Choose another number of micro-batches or another batch size",
        )

    def part(leaf: Any) -> Any:
        return leaf[: samples // count].clone() if isinstance(leaf, Tensor) else leaf

    return pytree.tree_map(part, inputs), {
        PART: pytree.tree_map(part, targets),
        WHOLE: targets,
    }


def part_loss(loss: Loss) -> Callable[[Any, Any], Tensor]:
    """What the samples of ``micro_batch`` add to the loss of the whole batch.

    Raises:
        CaptureError: a loss that is not known to be a sum or a mean of terms.
    """
    if loss == "causal_lm":
        tokens = _of_module(nn.CrossEntropyLoss(), tokens=True)
        return lambda output, told: tokens(
            main_output(output)[:, :-1],
            {name: only_tensor(target)[:, 1:] for name, target in told.items()},
        )
    if isinstance(loss, str) and loss in KNOWN:
        return _of_module(KNOWN[loss](), tokens=loss == "token_cross_entropy")
    if isinstance(loss, MODULES):
        return _of_module(loss, tokens=False)
    try:
        return _of_module(_FUNCTIONS[loss](), tokens=False)
    except (KeyError, TypeError):
        raise CaptureError(
            where=_WHERE,
            found=f"the loss {getattr(loss, '__name__', None) or repr(loss)}",
            needed=f"one of {', '.join(KNOWN)}, causal_lm, or a loss of torch.nn: a sum or a mean "
            "of terms that the parts of a batch add up to",
            remedy="Use such a loss, or leave micro_batches out",
        ) from None


def _of_module(module: nn.Module, *, tokens: bool) -> Callable[[Any, Any], Tensor]:
    """A loss module of PyTorch by its terms, over what all of the batch counts."""
    terms = terms_of(module)

    def call(output: Any, told: dict[str, Any]) -> Tensor:
        scores, target = main_output(output), only_tensor(told[PART])
        whole = only_tensor(told[WHOLE])
        if isinstance(module, (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)):
            check_same_shape(scores, target)
        each: Tensor = terms(scores.movedim(-1, 1) if tokens else scores, target)
        total, reduction = each.sum(), str(module.reduction)
        if reduction == "sum":
            return total
        if reduction == "batchmean":
            return total.div(whole.shape[0])
        counts = counted(module, scores.dtype, whole)
        if counts is None:
            return total.div(each.numel() * (whole.shape[0] // target.shape[0]))
        return total.div(counts.sum())

    return call
