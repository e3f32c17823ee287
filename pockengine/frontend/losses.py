"""Losses by name; any callable ``loss(output, target)`` that gives a scalar serves as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Final, NamedTuple, TypeAlias

import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pockengine.errors import CaptureError

Loss: TypeAlias = "str | Callable[[Any, Any], Tensor]"
MODEL: Final = "model"
"""The loss that the model computes itself."""

_Function: TypeAlias = Callable[[Any, Any], Tensor]


def _of_main(loss: Callable[[Tensor, Tensor], Tensor]) -> _Function:
    """Let a loss of two tensors take what a model returns."""

    @wraps(loss)
    def call(output: Any, target: Any) -> Tensor:
        return loss(main_output(output), only_tensor(target))

    return call


def main_output(output: Any) -> Tensor:
    """The tensor that a loss by name reads: the only one, or the one called ``logits``.

    Raises:
        CaptureError: there are several and none has that name.
    """
    if isinstance(output, Tensor):
        return output
    logits = output.get("logits") if isinstance(output, Mapping) else None
    if logits is None:
        logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    return only_tensor(output)


def only_tensor(tree: Any) -> Tensor:
    """The one tensor of a tree.

    Raises:
        CaptureError: there is none, or several.
    """
    leaves = [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]
    if len(leaves) == 1:
        return leaves[0]
    raise CaptureError(
        where="compile(loss=...)",
        found=f"{len(leaves)} tensors in {type(tree).__name__}",
        needed="one tensor, or one called logits, for a loss given by name",
        remedy="Pass a callable: loss=lambda output, target: ... that picks what it needs",
    )


def _bce_with_logits(output: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(output, target.to(output.dtype))


def _token_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """(..., C) scores and (...) labels; the mean over labels that are not -100."""
    return F.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1))


def _causal_lm(output: Tensor, target: Tensor) -> Tensor:
    """(B, T, V) scores and (B, T) tokens: each position is to give the next one's token."""
    return _token_cross_entropy(output[:, :-1], target[:, 1:])


LOSSES: dict[str, _Function] = {
    "cross_entropy": _of_main(F.cross_entropy),
    "mse": _of_main(F.mse_loss),
    "l1": _of_main(F.l1_loss),
    "smooth_l1": _of_main(F.smooth_l1_loss),
    "bce_with_logits": _of_main(_bce_with_logits),
    "token_cross_entropy": _of_main(_token_cross_entropy),
    "causal_lm": _of_main(_causal_lm),
}


def loss_function(loss: Loss) -> _Function:
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
        needed=f"one of {', '.join(LOSSES)}, {MODEL}, or a callable loss(output, target) -> scalar",
        remedy="Give a name from the list or a callable such as torch.nn.CrossEntropyLoss()",
    )


class LossKind(NamedTuple):
    """What a loss says about outputs and targets, for metrics.

    Args:
        name: of a loss by name, or of the class of a module; "" for any other callable.
        ignore: the label that does not count.
    """

    name: str = ""
    ignore: int = -100


def loss_kind(loss: Loss) -> LossKind:
    """The kind of a loss."""
    if isinstance(loss, str):
        return LossKind(loss)
    if isinstance(loss, nn.Module):
        return LossKind(type(loss).__name__, int(getattr(loss, "ignore_index", -100)))
    return LossKind()


def own_loss(output: Any) -> tuple[Tensor, Any]:
    """The loss among what a model returns, and the rest of it in its structure.

    It is what is called ``loss``; in a tuple, the only number; or all that there is.

    Raises:
        CaptureError: there is none.
    """
    if isinstance(output, Tensor):
        return output, ()
    if isinstance(output, Mapping) and isinstance(output.get("loss"), Tensor):
        rest = {key: value for key, value in output.items() if key != "loss"}
        return output["loss"], rest if type(output) is dict else type(output)(**rest)
    if isinstance(output, tuple) and isinstance(getattr(output, "loss", None), Tensor):
        place = next(i for i, each in enumerate(output) if each is output.loss)  # type: ignore[attr-defined]
        return output[place], (*output[:place], *output[place + 1 :])
    if isinstance(output, (tuple, list)):
        places = [i for i, each in enumerate(output) if _is_number(each)]
        if len(places) == 1:
            rest_of = (*output[: places[0]], *output[places[0] + 1 :])
            return output[places[0]], rest_of
    raise CaptureError(
        where=f"compile(loss={MODEL!r})",
        found=f"a {type(output).__name__} without a loss",
        needed="a model that returns a scalar, a tuple with one scalar, or something called loss",
        remedy="Pass what it computes the loss from as targets: a dict of keyword arguments, or "
        "a tensor for labels=",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, Tensor) and value.dim() == 0 and value.is_floating_point()
